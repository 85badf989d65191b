// Keeps the status badges and buttons of the instance list up to date.

import {get, whileVisible} from "./poll.js";

const list = document.getElementById("result_list");

if (list) {
    whileVisible(async () => {
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
    });
}
