// The page's one connection to llamactl: a WebSocket, and polling of the same address without one.

const SILENCE = 6000; // milliseconds; llamactl sends a beat every two seconds
const RETRY = [500, 1000, 2000, 5000];
const FALLBACK_RETRY = 30_000; // a reverse proxy without Upgrade headers stays so
const POLL = 2000;
const ENDINGS = {4401: "logged-out", 4403: "not-permitted"};

const banner = document.getElementById("live-banner");

export const live = {
    isConnected: false,
    ended: "", // why there are no more news, until the page is loaded again
    newsAt: Date.now(),
    askedAt: Date.now(),
    offset: 0, // of the server's clock, in milliseconds
    error: 0, // the status of an answer that was no news
    isSilent: () => Date.now() - Math.max(live.newsAt, live.askedAt) > SILENCE,
};

const listeners = [];
let socket = null;
let failures = 0;
let hasConnected = false;
let retry = null;
let isAsking = false;

// `listener` is called with each message; {isFirst} says that it opens a connection.
export function onMessage(listener) {
    listeners.push(listener);
}

function pass(message) {
    live.newsAt = Date.now();
    live.error = 0;
    if (message.now) live.offset = message.now - Date.now();
    for (const listener of listeners) listener(message);
}

function topic() {
    if (banner.dataset.topic !== "rows") return banner.dataset.topic;
    const shown = document.querySelectorAll("#result_list .badge[data-instance]");
    return `rows=${[...shown].map((badge) => badge.dataset.instance).join(".")}`;
}

function connect() {
    clearTimeout(retry);
    if (socket && socket.readyState <= WebSocket.OPEN) return;
    const url = new URL(`${banner.dataset.stream}?${topic()}`, location.href);
    url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
    const own = socket = new WebSocket(url);
    own.onmessage = (event) => {
        if (own !== socket) return;
        const isFirst = !live.isConnected;
        live.isConnected = hasConnected = true;
        failures = 0;
        pass({isFirst, ...JSON.parse(event.data)});
    };
    own.onclose = (event) => { if (own === socket) closed(event.code); };
}

function closed(code) {
    socket = null;
    live.isConnected = false;
    if (code === 4403) {
        end(ENDINGS[code]);
        return;
    }
    // A login elsewhere in this browser has changed the session: asked a second later.
    const pause = hasConnected ? RETRY[Math.min(failures, RETRY.length - 1)] : FALLBACK_RETRY;
    failures += 1;
    retry = setTimeout(connect, code === 4429 ? FALLBACK_RETRY : pause);
    if (code === 4401) clearTimeout(retry);
    setTimeout(() => ask(code === 4401), code === 4401 ? 1000 : 0);
}

function end(reason) {
    clearTimeout(retry);
    live.ended = reason;
    pass({});
}

// Asks for the state over HTTP, while there is no stream.
async function ask(mayConnect = false) {
    if (live.isConnected || isAsking || live.ended === "not-permitted") return;
    isAsking = true;
    try {
        const response = await fetch(banner.dataset.stream, {signal: AbortSignal.timeout(SILENCE)});
        live.error = response.ok ? 0 : response.status;
        if (response.status === 401) {
            end("logged-out");
        } else if (response.ok && !live.isConnected) {
            if (mayConnect || live.ended) connect();
            live.ended = "";
            pass(await response.json());
        }
    } catch {
        live.error = 0; // no answer: live.isSilent() says since when
    } finally {
        isAsking = false;
    }
}

function check() {
    if (document.hidden) return;
    if (live.isConnected && live.isSilent()) {
        const silent = socket;
        closed(0);
        silent.close();
    }
}

if (banner) {
    // The modules that listen are loaded first.
    setTimeout(connect);
    setInterval(check, 1000);
    setInterval(() => { if (!document.hidden && !live.ended) ask(); }, POLL);
    document.addEventListener("visibilitychange", () => {
        if (document.hidden) return;
        live.askedAt = Date.now();
        ask(true);
    });
}
