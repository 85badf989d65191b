// The banner of each page: what makes the page untrue, and statuses in grey while it does.

import {live, onMessage} from "./stream.js";
import {clock, duration, showTimes} from "./times.js";

const banner = document.getElementById("live-banner");
const list = banner?.querySelector("ul");
const root = document.documentElement;
let problems = null; // of the last message; the server's own lines until then
let isGone = false;

function line(kind, ...parts) {
    const item = document.createElement("li");
    item.dataset.problem = kind;
    item.append(...parts);
    return item;
}

function link(text, href) {
    const anchor = document.createElement("a");
    anchor.href = href;
    anchor.textContent = text;
    return anchor;
}

function ownLines() {
    const asOf = `Statuses are as of ${clock(live.newsAt + live.offset)}.`;
    const next = encodeURIComponent(location.pathname + location.search);
    const lines = [];
    if (live.ended === "logged-out") {
        lines.push(line("logged-out", "You were logged out: ",
            link("log in again", `${banner.dataset.login}?next=${next}`), `. ${asOf}`));
    } else if (live.ended === "not-permitted") {
        lines.push(line("not-permitted", "Your account may no longer see this page. ", asOf));
    } else if (live.isSilent()) {
        const seconds = document.createElement("span");
        seconds.setAttribute("aria-live", "off");
        seconds.textContent = duration(Date.now() - live.newsAt);
        const what = live.error ? `llamactl answers with error ${live.error} for ` : "No answer from llamactl for ";
        lines.push(line("web", what, seconds, `, trying again. ${asOf}`));
    }
    if (isGone) {
        lines.push(line("gone", "This instance was deleted. ", link("All instances", "../../")));
    }
    return lines;
}

function markStale(isUntold) {
    const silentNodes = [...list.querySelectorAll("[data-problem=worker]")].map((each) => each.dataset.node);
    const isAllStale = isUntold || Boolean(list.querySelector("[data-problem=database]"));
    root.toggleAttribute("data-stale", isAllStale);
    root.toggleAttribute("data-silent", silentNodes.length > 0);
    for (const badge of document.querySelectorAll(".badge[data-node]")) {
        badge.toggleAttribute("data-stale", silentNodes.includes(badge.dataset.node));
    }
}

function show() {
    const own = ownLines();
    const isUntold = live.ended !== "" || live.isSilent();
    const fresh = document.createElement("template");
    if (problems !== null && !live.ended) fresh.innerHTML = problems;
    const lines = [...own, ...fresh.content.children];
    if (problems !== null || own.length) swap(lines);
    markStale(isUntold);
    showTimes();
}

// Swaps what differs: a screen reader reads what is new, and a focused link keeps the focus.
function swap(lines) {
    const kinds = (items) => [...items].map((item) => item.dataset.problem + text(item)).join("|");
    if (kinds(lines) !== kinds(list.children)) list.replaceChildren(...lines);
    const seconds = lines[0]?.querySelector("span");
    if (seconds) list.querySelector("[data-problem=web] span").textContent = seconds.textContent;
    banner.hidden = !list.children.length;
}

// The text without what passes by itself.
function text(item) {
    const copy = item.cloneNode(true);
    for (const part of copy.querySelectorAll("time, span")) part.remove();
    return copy.textContent.trim();
}

if (banner) {
    onMessage((message) => {
        if (message.problems !== undefined) problems = message.problems;
        if (message.gone) isGone = true;
        if (message.problems !== undefined || message.gone || live.ended || message.rows || message.parts) show();
    });
    setInterval(show, 1000);
    show();
}
