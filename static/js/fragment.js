// Fetches the element with data-fragment again and swaps those of its parts that have changed.

import {get, whileVisible} from "./poll.js";

const SLACK = 8; // pixels from the end that still count as "at the end"

function follow(root) {
    for (const log of root.querySelectorAll("[data-follow]")) log.scrollTop = log.scrollHeight;
}

function isBeingRead(part) {
    const selection = document.getSelection();
    if (selection && !selection.isCollapsed && selection.containsNode(part, true)) return true;
    const log = part.querySelector("[data-follow]");
    return Boolean(log) && log.scrollHeight - log.clientHeight - log.scrollTop > SLACK;
}

const holder = document.querySelector("[data-fragment]");

if (holder) {
    follow(holder);
    whileVisible(async () => {
        const response = await get(holder.dataset.fragment);
        if (response === null) return false;
        const page = new DOMParser().parseFromString(await response.text(), "text/html");
        for (const fresh of page.querySelectorAll("[data-part]")) {
            const old = holder.querySelector(`[data-part="${fresh.dataset.part}"]`);
            if (!old || old.innerHTML === fresh.innerHTML || isBeingRead(old)) continue;
            const hadFocus = old.contains(document.activeElement);
            old.replaceChildren(...fresh.childNodes);
            follow(old);
            if (hadFocus) old.querySelector("button:not([hidden]), a")?.focus();
        }
        return true;
    }, Number(holder.dataset.every ?? 2));
}
