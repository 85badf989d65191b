// Calls an asynchronous function every few seconds while somebody can see the page and no stream
// feeds it.

import {live} from "./stream.js";

// `look` returns false when there is no point in asking again (logged out, deleted).
export function whileVisible(look, seconds = 2) {
    let timer = null;
    let busy = false;

    async function tick() {
        if (busy || document.hidden || live.isConnected) return;
        busy = true;
        try {
            if ((await look()) === false) stop();
        } catch {
            // The server is away, perhaps restarting: the next tick asks again.
        } finally {
            busy = false;
        }
    }

    function stop() {
        clearInterval(timer);
        document.removeEventListener("visibilitychange", tick);
    }

    timer = setInterval(tick, seconds * 1000);
    document.addEventListener("visibilitychange", tick);
}

// A GET that says null for "you may not, or it is gone": a redirect leads to the login page.
export async function get(url) {
    const response = await fetch(url, {redirect: "manual", headers: {Accept: "*/*"}});
    if (response.type === "opaqueredirect" || (response.status >= 400 && response.status < 500)) {
        return null;
    }
    if (!response.ok) throw new Error(`${url}: ${response.status}`);
    return response;
}
