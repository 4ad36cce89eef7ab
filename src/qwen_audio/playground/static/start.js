// Puts the page's document into its body, in front of Gradio's own elements.
if (document.body) playground.start();
else document.addEventListener("DOMContentLoaded", () => playground.start());
