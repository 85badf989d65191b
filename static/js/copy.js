// Buttons that copy the text of another element: <button data-copy="id of it">.

async function copy(text) {
    if (navigator.clipboard && window.isSecureContext) {
        await navigator.clipboard.writeText(text);
        return;
    }
    // Plain http on another host than localhost has no clipboard object.
    const area = document.createElement("textarea");
    area.value = text;
    area.style.position = "fixed";
    area.style.opacity = "0";
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    if (!copied) throw new Error("not copied");
}

for (const button of document.querySelectorAll("[data-copy]")) {
    const label = button.textContent;
    button.addEventListener("click", async () => {
        try {
            await copy(document.getElementById(button.dataset.copy).textContent);
            button.textContent = "Copied";
        } catch {
            button.textContent = "Select it";
        }
        setTimeout(() => { button.textContent = label; }, 2000);
    });
}
