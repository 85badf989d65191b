// The form of a key, and the page that shows a new one.

const issued = document.querySelector("[data-leave-to]");
if (issued) {
    // Loading this page again would send the form again and make a second key.
    history.replaceState(null, "", issued.dataset.leaveTo);
}

const rows = ["instances", "can_start", "can_evict", "can_stop"];
const chosen = rows.map((name) => document.querySelector(`.field-${name}`)).filter(Boolean);
const modes = document.querySelectorAll("input[name=permission_mode]");
function show() {
    const mode = document.querySelector("input[name=permission_mode]:checked");
    for (const row of chosen) {
        row.hidden = mode?.value !== "per_instance";
        row.style.display = row.hidden ? "none" : "";
    }
}
if (chosen.length && modes.length) {
    for (const mode of modes) mode.addEventListener("change", show);
    show();
}
