// Keeps the parts of the element with data-fragment up to date: an instance's page and the overview.
// The stream brings the parts or says that they have changed; without it they are polled.

import {get, whileVisible} from "./poll.js";
import {live, onMessage} from "./stream.js";
import {showTimes} from "./times.js";

const SLACK = 8; // pixels from the end that still count as "at the end"
const REFETCH = 500; // milliseconds in which further changes join one fetch

const holder = document.querySelector("[data-fragment]");
const held = new Map(); // parts that came while the old ones were read
let refetch = null;

function follow(root) {
    for (const log of root.querySelectorAll("[data-follow]")) log.scrollTop = log.scrollHeight;
}

function isBeingRead(part) {
    const selection = document.getSelection();
    if (selection && !selection.isCollapsed && selection.containsNode(part, true)) return true;
    const log = part.querySelector("[data-follow]");
    return Boolean(log) && log.scrollHeight - log.clientHeight - log.scrollTop > SLACK;
}

function swap(name, html) {
    held.delete(name);
    const old = holder.querySelector(`[data-part="${name}"]`);
    const fresh = document.createElement("template");
    fresh.innerHTML = html;
    if (!old || old.innerHTML.trim() === fresh.innerHTML.trim()) return;
    if (isBeingRead(old)) {
        held.set(name, html);
        return;
    }
    const hadFocus = old.contains(document.activeElement);
    old.replaceChildren(fresh.content);
    follow(old);
    if (hadFocus) old.querySelector("button:not([hidden]), a")?.focus();
}

async function fetchParts() {
    refetch = null;
    const response = await get(holder.dataset.fragment);
    if (response === null) return false;
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    for (const part of page.querySelectorAll("[data-part]")) swap(part.dataset.part, part.innerHTML);
    showTimes(holder);
    return true;
}

function take(message) {
    for (const [name, html] of Object.entries(message.parts ?? {})) swap(name, html);
    if (message.status) {
        for (const controls of holder.querySelectorAll(".controls")) {
            controls.dataset.status = message.status;
        }
    }
    if (message.changed && holder.dataset.every) {
        refetch ??= setTimeout(() => fetchParts().catch(() => {}), REFETCH);
    }
    showTimes(holder);
}

if (holder) {
    follow(holder);
    onMessage(take);
    setInterval(() => { if (live.isConnected) for (const part of [...held]) swap(...part); }, 1000);
    whileVisible(fetchParts, Number(holder.dataset.every ?? 2));
}
