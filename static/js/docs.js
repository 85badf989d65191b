// The API's documentation is dark where the rest of the system is: Swagger UI has the colours, but
// looks for the system's wish only in a layout that also has a bar of its own.

const dark = window.matchMedia("(prefers-color-scheme: dark)");

function follow() {
    document.documentElement.classList.toggle("dark-mode", dark.matches);
}

dark.addEventListener("change", follow);
follow();
