// Follows the record: when it has something new, the page's content is fetched and put in place, and nothing reloads.
(() => {
  const place = document.body.dataset.follow;
  const reachable = "main a, main button, main input, main select, main summary, main [tabindex]";
  let known = document.body.dataset.state;

  async function renew() {
    const answer = await fetch(place);
    if (!answer.ok) return;
    const found = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
    if (!found) return;
    const open = [...document.querySelectorAll("details")].map((part) => part.open);
    const focused = [...document.querySelectorAll(reachable)].indexOf(document.activeElement);
    document.querySelector("main").replaceWith(document.importNode(found, true));
    document.querySelectorAll("details").forEach((part, i) => { part.open = open[i] ?? false; });
    window.dispatchEvent(new Event("renewed"));
    document.querySelectorAll(reachable)[focused]?.focus({ preventScroll: true });
  }

  new EventSource("/changes").onmessage = (event) => {
    if (known !== event.data) renew();
    known = event.data;
  };
})();
