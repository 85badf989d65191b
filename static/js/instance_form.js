// Form of an instance: shows the chosen backend's fields, and fills them from a command line.

const backend = document.getElementById("id_backend_type");

function showFields() {
    for (const input of document.querySelectorAll("[data-backends]")) {
        const isOffered = input.dataset.backends.split(" ").includes(backend.value);
        input.closest(".field-line").style.display = isOffered ? "" : "none";
    }
    for (const row of document.querySelectorAll(".form-row:has([data-backends])")) {
        const lines = [...row.querySelectorAll(".field-line")];
        row.style.display = lines.some((line) => line.style.display !== "none") ? "" : "none";
    }
}

if (backend) {
    backend.addEventListener("change", showFields);
    showFields();
}

const paste = document.querySelector("[data-parse-url]");

function fill(fields) {
    let filled = 0;
    if (fields.backend_type && backend.value !== fields.backend_type) {
        // The command starts another backend's program.
        backend.value = fields.backend_type;
        showFields();
    }
    for (const input of document.querySelectorAll("[data-backends], #id_port, #id_further_options")) {
        // An option missing in the command has the program's default, so its field becomes empty.
        input.value = fields[input.name] ?? "";
        if (input.value) filled += 1;
    }
    for (const name of ["name", "environment", "docker_enabled", "docker_image", "docker_args"]) {
        const input = document.getElementById(`id_${name}`);
        if (!input || !fields[name] || input.value) continue;
        input.value = fields[name];
        const folded = input.closest("details");
        if (folded) folded.open = true;
    }
    return filled;
}

function showFindings(findings) {
    const items = findings.map((finding) => {
        const item = document.createElement("li");
        item.dataset.severity = finding.severity;
        item.textContent = finding.text;
        return item;
    });
    document.getElementById("paste-findings").replaceChildren(...items);
}

async function parse() {
    const outcome = document.getElementById("paste-outcome");
    const body = new URLSearchParams({
        backend_type: backend.value,
        command: document.getElementById("pasted-command").value,
        csrfmiddlewaretoken: document.querySelector("[name=csrfmiddlewaretoken]").value,
    });
    outcome.textContent = "";
    showFindings([]);
    delete outcome.dataset.wrong;
    try {
        const response = await fetch(paste.dataset.parseUrl, {method: "POST", body, redirect: "error"});
        const answer = await response.json();
        if (!response.ok) throw new Error(answer.details);
        outcome.textContent = `Filled in ${fill(answer.fields)} fields; check them, then save.`;
        showFindings(answer.findings);
    } catch (error) {
        outcome.dataset.wrong = "";
        outcome.textContent = error instanceof TypeError || error instanceof SyntaxError
            ? "The server did not respond. Check that you are still logged in."
            : error.message;
    }
}

if (paste) document.getElementById("fill-from-command").addEventListener("click", parse);
