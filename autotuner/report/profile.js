// The flame graph: a click makes a frame as wide as the page, and its callers with it. Without this it is only a picture.
(() => {
  const flame = document.querySelector(".flame");
  if (!flame) return;
  const frames = [...flame.children];
  const words = document.querySelector(".flame-bar output");
  const whole = Number(flame.dataset.total);

  function show(start, width, depth) {
    for (const frame of frames) {
      const x = Number(frame.dataset.x), w = Number(frame.dataset.w), d = Number(frame.dataset.d);
      const above = d < depth && x <= start && x + w >= start + width;
      const inside = d >= depth && x >= start && x + w <= start + width;
      frame.hidden = !(above || inside);
      frame.classList.toggle("past", above);
      frame.style.left = above ? "0" : `${(100 * (x - start)) / width}%`;
      frame.style.width = above ? "100%" : `${(100 * w) / width}%`;
    }
  }

  function zoom(frame) {
    show(Number(frame.dataset.x), Number(frame.dataset.w), Number(frame.dataset.d));
  }

  flame.addEventListener("click", (event) => event.target.dataset.x !== undefined && zoom(event.target));
  flame.addEventListener("keydown", (event) => event.key === "Enter" && zoom(event.target));
  flame.addEventListener("mouseover", (event) => { if (event.target.title) words.textContent = event.target.title; });
  document.querySelector(".flame-bar button").addEventListener("click", () => show(0, whole, 0));
})();
