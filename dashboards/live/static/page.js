// Renders the Bokeh sources `kpis`, `status`, `movers`, `picks` and `explanation` into the page,
// passes clicks back as the value of `series_search`, and reloads the page after a lost connection.
// All content is written as text, never as markup: product ids are untrusted input.
(() => {
  "use strict";
  const MAX_SILENCE_MS = 8000;
  let pulse = "";
  let lastPulseMs = Date.now();
  let selected = "";

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
      lastPulseMs = Date.now();
    }
    if (value("series") !== selected) {
      selected = value("series");
      const url = new URL(window.location.href);
      url.searchParams.set("series", selected);
      window.history.replaceState(null, "", url);
      document.title = `${value("title")} · Surgecast`;
      markSelected();
    }
  };

  const markSelected = () => {
    for (const button of document.querySelectorAll("[data-series]"))
      button.setAttribute("aria-pressed", String(button.dataset.series === selected));
  };

  const dailyBars = (daily) => {
    const width = 66, height = 26, gap = 2;
    const step = width / daily.length;
    const top = Math.max(...daily, 1);
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("width", width);
    svg.setAttribute("height", height);
    daily.forEach((units, at) => {
      const barHeight = Math.max(1, (height * units) / top);
      const bar = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      bar.setAttribute("x", at * step);
      bar.setAttribute("y", height - barHeight);
      bar.setAttribute("width", step - gap);
      bar.setAttribute("height", barHeight);
      bar.setAttribute("rx", 1);
      bar.setAttribute("fill", at === daily.length - 1 ? "#5aa9e6" : "#3a4b66");
      svg.append(bar);
    });
    return svg;
  };

  const ROW_PX = 46, HEADINGS_PX = 60;

  const maxRows = () => {
    const height = document.getElementById("movers").parentElement.clientHeight - 46 - HEADINGS_PX;
    return Math.max(2, Math.floor(height / ROW_PX / 2));
  };

  const showMovers = (source) => {
    const { direction, series_id, category, units, change, ratio, daily } = source.data;
    if (series_id.length === 0) return;
    const list = [];
    for (const [sign, heading] of [["up", "Rising"], ["down", "Falling"]]) {
      list.push(element("div", "group", heading));
      const matches = Array.from(direction.keys()).filter((at) => direction[at] === sign);
      const most = maxRows();
      if (matches.length === 0) list.push(element("p", "none", "No products"));
      for (const at of sign === "up" ? matches.slice(0, most) : matches.slice(-most)) {
        const button = element("button", "mover");
        button.type = "button";
        button.dataset.series = series_id[at];
        button.dataset.direction = sign;
        const name = element("div");
        name.append(element("div", "id", series_id[at]));
        name.append(element("div", "sub", [`${units[at]} units`, category[at]].filter(Boolean).join(" · ")));
        const delta = element("div");
        delta.append(element("div", "delta", change[at]), element("div", "ratio", ratio[at]));
        button.append(name, dailyBars(daily[at].split(",").map(Number)), delta);
        list.push(button);
      }
    }
    document.getElementById("movers").replaceChildren(...list);
    markSelected();
  };

  let whySpan = "";  // chosen by a click; else the first

  const whyRow = (row) => {
    const line = element("tr");
    line.dataset.tone = row.tone;
    line.title = [row.label, row.note, row.hint].filter(Boolean).join(" · ");
    const label = element("th", "", row.label);
    label.scope = "row";
    if (row.note) label.append(" ", element("span", "why-note", row.note));
    const bar = element("i");
    bar.style.left = `${100 * Math.min(row.start, row.end)}%`;
    bar.style.width = `${100 * Math.abs(row.end - row.start)}%`;
    const track = element("td", "why-track");
    track.setAttribute("aria-hidden", "true");
    track.append(bar);
    line.append(label, track, element("td", "why-value", row.value));
    return line;
  };

  const showExplanation = (source) => {
    const data = source.data;
    const all = Array.from(data.span, (_, at) =>
      Object.fromEntries(Object.keys(data).map((name) => [name, data[name][at]])));
    const spans = [...new Set(all.map((row) => row.span).filter(Boolean))];
    const shown = spans.includes(whySpan) ? whySpan : spans[0];
    const buttons = document.getElementById("why-spans");
    // kept while they stay the same, so that a focused one keeps the focus
    if (spans.join() !== Array.from(buttons.children, (button) => button.dataset.span).join())
      buttons.replaceChildren(...spans.map((span) => {
        const button = element("button", "pick", span);
        button.type = "button";
        button.dataset.span = span;
        return button;
      }));
    for (const button of buttons.children)
      button.setAttribute("aria-pressed", String(button.dataset.span === shown));
    const panel = document.getElementById("why");
    if (shown === undefined) {
      panel.replaceChildren(element("p", "placeholder", all[0]?.label || "Needs a forecast."));
      return;
    }
    const [head, ...steps] = all.filter((row) => row.span === shown);
    const table = element("table");
    const caption = element("caption", "tag", `${head.label} · `);
    caption.append(element("b", "", head.value));
    table.append(caption, ...steps.map(whyRow));
    panel.replaceChildren(table);
  };

  const chooseSpan = (event) => {
    const button = event.target.closest?.("[data-span]");
    if (!button) return;
    whySpan = button.dataset.span;
    showExplanation(model("explanation"));
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
    markSelected();
  };

  // pointerdown, not click: a row may be redrawn between press and release
  const select = (event) => {
    const button = event.target.closest?.("[data-series]");
    const search = model("series_search");
    if (!button || !search) return;
    search.value = "";
    search.value = button.dataset.series;
  };
  const press = (event) => {
    select(event);
    chooseSpan(event);
  };
  document.addEventListener("pointerdown", press);
  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") press(event);
  });

  const watch = (name, render) => {
    const source = model(name);
    const update = () => render(source);
    source.change.connect(update);
    source.patching.connect(update);
    source.streaming.connect(update);
    update();
  };

  const reload = async () => {
    try {
      const response = await fetch(window.location.href, { cache: "no-store" });
      if (response.ok) window.location.reload();
    } catch {
      // still unreachable: the next check retries
    }
  };

  const starting = setInterval(() => {
    if (!model("status") || !model("kpis")) return;
    clearInterval(starting);
    lastPulseMs = Date.now();
    watch("kpis", (source) => show("data-kpi", source));
    watch("status", showStatus);
    watch("movers", showMovers);
    watch("picks", showPicks);
    watch("explanation", showExplanation);
    new ResizeObserver(() => showMovers(model("movers"))).observe(document.querySelector(".movers"));
    setInterval(() => {
      const lost = Date.now() - lastPulseMs > MAX_SILENCE_MS;
      document.getElementById("cut-off").hidden = !lost;
      if (lost) reload();
    }, 2000);
  }, 50);
})();
