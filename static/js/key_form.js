// The form of a key, and the page that shows a new one.

const issued = document.querySelector("[data-leave-to]");
if (issued) {
    // Loading this page again would send the form again and make a second key.
    history.replaceState(null, "", issued.dataset.leaveTo);
}

const chosen = document.querySelector(".field-instances");
const modes = document.querySelectorAll("input[name=permission_mode]");
function show() {
    const mode = document.querySelector("input[name=permission_mode]:checked");
    chosen.hidden = mode?.value !== "per_instance";
    chosen.style.display = chosen.hidden ? "none" : "";
}
if (chosen && modes.length) {
    for (const mode of modes) mode.addEventListener("change", show);
    show();
}
