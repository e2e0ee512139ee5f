// Writes the words and figures of the Bokeh sources `kpis`, `status`, `movers` and `picks` into the
// page, passes clicks back as the value of `series_search`, and notices when the page is cut off.
// Everything is written as text, never as markup: ids of products come from outside.
(() => {
  "use strict";
  const CUT_OFF_MS = 8000;
  let pulse = "";
  let heard = Date.now();
  let chosen = "";

  const model = (name) => window.Bokeh?.documents?.[0]?.get_model_by_name(name) ?? null;

  const element = (tag, className, text) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== undefined) node.textContent = text;
    return node;
  };

  const write = (node, text) => {
    if (node && node.textContent !== text) node.textContent = text;
  };

  const rows = (source) => {
    const data = source.data;
    return Array.from(data.key, (key, at) => ({
      key, value: data.value[at], note: data.note[at], tone: data.tone[at],
    }));
  };

  const show = (attribute, source) => {
    for (const { key, value, note, tone } of rows(source)) {
      const node = document.querySelector(`[${attribute}="${key}"]`);
      if (!node) continue;
      write(node.querySelector("[data-value]"), value);
      write(node.querySelector("[data-note]"), note);
      node.title = [value, note].filter(Boolean).join(" · ");
      node.dataset.tone = tone;
      node.toggleAttribute("data-empty", value === "" && note === "");
    }
  };

  const showStatus = (source) => {
    show("data-status", source);
    const value = (key) => rows(source).find((row) => row.key === key)?.value ?? "";
    if (value("pulse") !== pulse) {
      pulse = value("pulse");
      heard = Date.now();
    }
    if (value("series") !== chosen) {
      chosen = value("series");
      const url = new URL(window.location.href);
      url.searchParams.set("series", chosen);
      window.history.replaceState(null, "", url);
      document.title = `${value("title")} · Surgecast`;
      press();
    }
  };

  const press = () => {
    for (const button of document.querySelectorAll("[data-series]"))
      button.setAttribute("aria-pressed", String(button.dataset.series === chosen));
  };

  const bars = (daily) => {
    const width = 66, height = 26, gap = 2;
    const step = width / daily.length;
    const top = Math.max(...daily, 1);
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("width", width);
    svg.setAttribute("height", height);
    daily.forEach((units, at) => {
      const tall = Math.max(1, (height * units) / top);
      const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      bar.setAttribute("x", at * step);
      bar.setAttribute("y", height - tall);
      bar.setAttribute("width", step - gap);
      bar.setAttribute("height", tall);
      bar.setAttribute("rx", 1);
      bar.setAttribute("fill", at === daily.length - 1 ? "#5aa9e6" : "#3a4b66");
      svg.append(bar);
    });
    return svg;
  };

  const ROW_PX = 46, HEADINGS_PX = 60;

  const fitting = () => {
    const height = document.getElementById("movers").parentElement.clientHeight - 46 - HEADINGS_PX;
    return Math.max(4, Math.floor(height / ROW_PX / 2));
  };

  const showMovers = (source) => {
    const { direction, series_id, category, units, change, ratio, daily } = source.data;
    if (series_id.length === 0) return;
    const list = [];
    for (const [way, heading] of [["up", "Rising"], ["down", "Falling"]]) {
      list.push(element("div", "group", heading));
      const found = Array.from(direction.keys()).filter((at) => direction[at] === way);
      const most = fitting();
      if (found.length === 0) list.push(element("p", "none", "No product at the moment"));
      for (const at of way === "up" ? found.slice(0, most) : found.slice(-most)) {
        const button = element("button", "mover");
        button.type = "button";
        button.dataset.series = series_id[at];
        button.dataset.direction = way;
        const name = element("div");
        name.append(element("div", "id", series_id[at]));
        name.append(element("div", "sub", [`${units[at]} units`, category[at]].filter(Boolean).join(" · ")));
        const delta = element("div");
        delta.append(element("div", "delta", change[at]), element("div", "ratio", ratio[at]));
        button.append(name, bars(daily[at].split(",").map(Number)), delta);
        list.push(button);
      }
    }
    document.getElementById("movers").replaceChildren(...list);
    press();
  };

  const showPicks = (source) => {
    const { series_id, label } = source.data;
    const list = Array.from(series_id, (id, at) => {
      const button = element("button", "pick", label[at]);
      button.type = "button";
      button.dataset.series = id;
      return button;
    });
    document.getElementById("picks").replaceChildren(...list);
    press();
  };

  // pointerdown rather than click: a row may be redrawn between press and release
  const choose = (event) => {
    const button = event.target.closest?.("[data-series]");
    const search = model("series_search");
    if (!button || !search) return;
    search.value = "";
    search.value = button.dataset.series;
  };
  document.addEventListener("pointerdown", choose);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") choose(event);
  });

  const watch = (name, render) => {
    const source = model(name);
    const again = () => render(source);
    source.change.connect(again);
    source.patching.connect(again);
    source.streaming.connect(again);
    again();
  };

  const reload = async () => {
    try {
      const answer = await fetch(window.location.href, { cache: "no-store" });
      if (answer.ok) window.location.reload();
    } catch {
      // still away: the next beat tries again
    }
  };

  const begin = setInterval(() => {
    if (!model("status") || !model("kpis")) return;
    clearInterval(begin);
    heard = Date.now();
    watch("kpis", (source) => show("data-kpi", source));
    watch("status", showStatus);
    watch("movers", showMovers);
    watch("picks", showPicks);
    window.addEventListener("resize", () => showMovers(model("movers")));
    setInterval(() => {
      const lost = Date.now() - heard > CUT_OFF_MS;
      document.getElementById("cut-off").hidden = !lost;
      if (lost) reload();
    }, 2000);
  }, 50);
})();
