// Keeps the times of the page true: "3 min ago", "for 12 s", and clock times of the reader's zone.

import {live} from "./stream.js";

const UNITS = [["d", 86_400], ["h", 3_600], ["min", 60]];

export function duration(milliseconds) {
    const seconds = Math.max(Math.trunc(milliseconds / 1000), 0);
    for (const [unit, length] of UNITS) {
        if (seconds >= length) return `${Math.trunc(seconds / length)} ${unit}`;
    }
    return `${seconds} s`;
}

export function clock(milliseconds) {
    return new Date(milliseconds).toLocaleTimeString([], {
        hour: "2-digit", minute: "2-digit", second: "2-digit", timeZoneName: "short",
    });
}

function relative(age) {
    if (Math.abs(age) < 2000) return "just now";
    return age > 0 ? `${duration(age)} ago` : `in ${duration(-age)}`;
}

export function showTimes(root = document) {
    const now = Date.now() + live.offset;
    for (const time of root.querySelectorAll("time[data-relative]")) {
        const age = now - Date.parse(time.dateTime);
        const text = time.dataset.relative === "ago" ? relative(age) : duration(age);
        if (time.textContent !== text) time.textContent = text;
        time.setAttribute("aria-live", "off"); // a screen reader need not read each second
    }
    for (const time of root.querySelectorAll("time[data-clock]")) {
        const text = clock(Date.parse(time.dateTime));
        if (time.textContent !== text) time.textContent = text;
    }
}

setInterval(() => { if (!document.hidden) showTimes(); }, 1000);
