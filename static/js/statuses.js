// Keeps the list of instances up to date: by the stream, or by polling its badges and buttons.

import {get, whileVisible} from "./poll.js";
import {onMessage} from "./stream.js";
import {showTimes} from "./times.js";

const PAUSE = 300; // milliseconds between two fetches
const list = document.getElementById("result_list");
const isWhole = !location.search; // without a filter, a search, an order or a page
let isFetching = false;
let isDue = false;

function rowOf(id) {
    return list?.querySelector(`.badge[data-instance="${id}"]`)?.closest("tbody");
}

function show(id, row) {
    const body = rowOf(id);
    if (!body) return false;
    for (const [name, html] of Object.entries(row.cells)) {
        const cell = body.querySelector(`td.field-${name}`);
        if (!cell) continue;
        const fresh = document.createElement("template");
        fresh.innerHTML = html;
        if (cell.innerHTML.trim() !== fresh.innerHTML.trim()) cell.replaceChildren(fresh.content);
    }
    for (const controls of body.querySelectorAll(".controls")) controls.dataset.status = row.status;
    return true;
}

function idOf(body) {
    return body.querySelector(".badge[data-instance]")?.dataset.instance;
}

// Fetches the page again, and takes over which rows it has, and in which order.
async function fetchRows() {
    isDue = true;
    if (isFetching) return;
    isFetching = true;
    try {
        while (isDue) {
            isDue = false;
            await takeRows();
            await new Promise((resolve) => { setTimeout(resolve, PAUSE); });
        }
    } catch {
        // The server is away: a new connection tells all rows.
    } finally {
        isFetching = false;
    }
}

async function takeRows() {
    const response = await get(location.href);
    if (response === null) return;
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const fresh = page.getElementById("result_list");
    if (!fresh || !list) {
        if (fresh || list) location.reload(); // the first row, or none any more
        return;
    }
    const footer = "#main > :last-child"; // the count of the rows, and the links to other pages
    if (!document.querySelector(footer).contains(list)) {
        document.querySelector(footer).replaceChildren(...page.querySelector(footer).childNodes);
    }
    const rows = [...fresh.tBodies].map((body) => rowOf(idOf(body)) ?? body);
    const shown = new Set(rows);
    for (const body of [...list.tBodies]) if (!shown.has(body)) body.remove();
    rows.forEach((body, place) => {
        body.classList.toggle("bg-base-50", place % 2 === 1);
        body.classList.toggle("dark:bg-white/[.02]", place % 2 === 1);
        if (list.tBodies[place] !== body) list.insertBefore(body, list.tBodies[place] ?? null);
    });
    showTimes(list);
}

function follow(message) {
    if (message.ids) {
        const shown = new Set([...(list?.tBodies ?? [])].map(idOf));
        const known = new Set(message.ids.map(String));
        const isGone = [...shown].some((id) => id && !known.has(id));
        if (isGone || (isWhole && known.size <= 50 && known.size !== shown.size)) fetchRows();
    }
    if (!message.rows) return;
    const changed = Object.entries(message.rows).map(([id, row]) => show(id, row));
    for (const id of message.removed ?? []) rowOf(id)?.remove();
    const isElsewhere = changed.includes(false) || message.added?.length || message.removed?.length;
    if (isElsewhere || (!isWhole && changed.length)) fetchRows();
    if (list) showTimes(list);
}

async function poll() {
    const marked = [...list.querySelectorAll("[data-instance]")];
    const ids = [...new Set(marked.map((element) => element.dataset.instance))];
    if (!ids.length) return false;
    const response = await get(`statuses/?ids=${ids.join(",")}`);
    if (response === null) return false;
    const statuses = await response.json();
    for (const element of marked) {
        const now = statuses[element.dataset.instance];
        if (!now) continue;
        const label = element.querySelector("[data-label]");
        if (label) element.title = now.title;
        if (element.dataset.status === now.status) continue;
        element.dataset.status = now.status;
        if (label) label.textContent = now.label;
    }
    return true;
}

if (document.getElementById("live-banner")?.dataset.topic === "rows") {
    onMessage(follow);
    if (list) whileVisible(poll);
}
