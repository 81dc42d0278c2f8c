// What can only be seen in a rendered page. Each probe returns a list of messages; empty is good.
({
  where(node) {
    const element = node.nodeType === 1 ? node : node.parentElement;
    const named = element.closest("[id]");
    const name = element.tagName.toLowerCase() + (element.classList[0] ? `.${element.classList[0]}` : "");
    return named && named !== element ? `${name} in #${named.id}` : name + (element.id ? `#${element.id}` : "");
  },

  main() {
    return document.querySelector("article.bd-article") || document.querySelector("main") || document.body;
  },

  async settle() {
    if (window.MathJax && window.MathJax.startup) await window.MathJax.startup.promise;
    await document.fonts.ready;
    await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
  },

  unfold() {
    for (const folded of document.querySelectorAll("details")) folded.open = true;
    for (const box of document.querySelectorAll(".toggle-hidden")) box.classList.remove("toggle-hidden");
  },

  // MathJax shows an undefined macro as red text and a wrong formula as mjx-merror.
  tex() {
    const found = [];
    for (const bad of document.querySelectorAll("mjx-merror, merror, [data-mjx-error]")) {
      const error = bad.closest("[data-mjx-error]");
      found.push(`TeX error ${error ? error.getAttribute("data-mjx-error") : bad.textContent} at ${this.where(bad)}`);
    }
    const red = 'mjx-assistive-mml [mathcolor="red"], mjx-container [style*="color: red"]';
    for (const bad of document.querySelectorAll(red)) {
      if (bad.closest("mjx-merror")) continue;
      found.push(`red TeX "${bad.textContent}" at ${this.where(bad.closest("mjx-container"))}`);
    }
    for (const box of document.querySelectorAll(".math.notranslate")) {
      if (!box.querySelector("mjx-container")) found.push(`formula not typeset: ${box.textContent.slice(0, 60)}`);
    }
    return found;
  },

  formulas() {
    return document.querySelectorAll("mjx-container").length;
  },

  rawTex() {
    const skip = "pre, code, script, style, textarea, mjx-container, .math, svg style";
    const walker = document.createTreeWalker(this.main(), NodeFilter.SHOW_TEXT);
    const found = [];
    while (walker.nextNode()) {
      const text = walker.currentNode.textContent;
      if (walker.currentNode.parentElement.closest(skip)) continue;
      if (/\$|\\\(|\\\[|\\begin\{|\\(frac|mathbb|sum|eta|alpha|top)\b|\{(claim|eq|cite|prf|ref|doc|glue)[:\w]*\}/.test(text)) {
        found.push(`raw markup "${text.trim().slice(0, 80)}" at ${this.where(walker.currentNode)}`);
      }
    }
    return found;
  },

  // Sphinx writes the file's name where no alternative text was given: that says nothing.
  nameOf(node) {
    const labels = (node.getAttribute("aria-labelledby") || "").split(/\s+/).filter(Boolean);
    const texts = labels.map((id) => (document.getElementById(id) || { textContent: "" }).textContent);
    const title = node.querySelector(":scope > title");
    return [node.getAttribute("alt"), node.getAttribute("aria-label"), ...texts, title && title.textContent]
      .map((text) => (text || "").trim()).find((text) => text.length > 0) || "";
  },

  alternatives() {
    const found = [];
    for (const image of document.querySelectorAll("img")) {
      const name = this.nameOf(image);
      const decorative = image.getAttribute("alt") === "" && !this.main().contains(image);
      if (!name && !decorative) found.push(`image without alternative text: ${image.getAttribute("src")}`);
      if (/\.(png|svg|jpe?g|gif|webp)$/i.test(name)) found.push(`alternative text is a file name: ${name}`);
    }
    for (const drawing of this.main().querySelectorAll("svg")) {
      const hidden = drawing.closest('[aria-hidden="true"]');
      const part = drawing.parentElement.closest("svg, mjx-container, button, a, summary");
      const labelled = drawing.closest('[role="img"], [role="application"], [role="group"], figure');
      if (hidden || part) continue;
      if (!this.nameOf(drawing) && !(labelled && this.nameOf(labelled))) {
        found.push(`drawing without a label at ${this.where(drawing)}`);
      }
    }
    return found;
  },

  scrolls(node) {
    for (let box = node.parentElement; box && box !== document.body; box = box.parentElement) {
      const style = getComputedStyle(box);
      if (["auto", "scroll"].includes(style.overflowX) && box.clientWidth < box.scrollWidth) return true;
      if (style.clip !== "auto" || style.clipPath !== "none") return true; // for screen readers only
    }
    return false;
  },

  overflow() {
    const found = [];
    const room = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth > room) {
      found.push(`the page is ${document.documentElement.scrollWidth} px wide in a window of ${room} px`);
    }
    const wide = [];
    for (const node of this.main().querySelectorAll("*")) {
      const box = node.getBoundingClientRect();
      if (box.width < 2 || box.height < 2 || box.right <= room + 1 || node.closest("mjx-assistive-mml")) continue;
      if (wide.some((outer) => outer.contains(node)) || this.scrolls(node)) continue;
      if (getComputedStyle(node).position === "fixed" || node.ownerSVGElement) continue; // an svg clips what is in it
      wide.push(node);
      found.push(`${Math.round(box.right - room)} px beyond the window: ${this.where(node)}`);
    }
    return found;
  },

  // Not every browser lets the keyboard into a box that scrolls: it needs a tab stop, its own or inside.
  mouseOnly() {
    const stop = "a[href], button, input, select, textarea, summary, [tabindex]:not([tabindex='-1'])";
    const found = [];
    for (const node of this.main().querySelectorAll("*")) {
      const scrolling = ["auto", "scroll"].includes(getComputedStyle(node).overflowX);
      if (!scrolling || node.scrollWidth <= node.clientWidth + 1) continue;
      if (!node.matches(stop) && !node.querySelector(stop)) found.push(`scrolls by mouse only: ${this.where(node)}`);
    }
    return found;
  },

  // The edge of a formula fades where it goes on to the right; one that is seen whole must not.
  faded() {
    const found = [];
    for (const node of this.main().querySelectorAll("span.math")) {
      const box = node.getBoundingClientRect(), formula = node.querySelector("mjx-container").getBoundingClientRect();
      const fades = getComputedStyle(node).maskImage !== "none";
      if (fades && formula.right <= box.right + 4) found.push(`fades though seen whole: "${node.textContent.slice(0, 20)}" at ${this.where(node)}`);
    }
    return found;
  },

  // In the dark theme nothing large may keep a light background.
  lightCards() {
    const found = [];
    for (const node of this.main().querySelectorAll("*")) {
      const box = node.getBoundingClientRect();
      if (box.width < 60 || box.height < 40) continue;
      const style = getComputedStyle(node);
      const paint = node.tagName === "rect" ? style.fill : style.backgroundColor;
      const parts = (paint.match(/[\d.]+/g) || []).map(Number);
      const opaque = parts.length === 3 || (parts.length === 4 && parts[3] > 0.5);
      const bright = 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2] > 140;
      if (/^rgb/.test(paint) && opaque && bright) found.push(`light card ${paint} at ${this.where(node)}`);
    }
    return found;
  },

  async axe(rules) {
    const only = rules ? { type: "rule", values: rules }
      : { type: "tag", values: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"] };
    // preload would fetch style sheets anew, at wrong addresses
    const settings = { runOnly: only, resultTypes: ["violations"], preload: false };
    // The insides of a formula and of a still figure are one picture each, and code looks alike after the
    // fifth cell: taken out for the while, as axe would spend minutes on their thousands of nodes.
    const inside = [...document.querySelectorAll("mjx-container > *, .amem-figure svg > g"),
      ...[...document.querySelectorAll(".highlight pre > span")].filter((node) => Number(node.parentNode.id.slice(8)) > 4)];
    const homes = inside.map((node) => [node, node.parentNode, node.nextSibling]);
    const sizes = new Map(homes.map(([, home]) => [home, home.getBoundingClientRect()]));
    for (const [home, box] of sizes) home.style.cssText += `;min-width:${box.width}px;min-height:${box.height}px`;
    inside.forEach((node) => node.remove());
    const report = await window.axe.run(document, settings);
    for (const [node, home, next] of homes.reverse()) home.insertBefore(node, next);
    for (const home of sizes.keys()) { home.style.minWidth = ""; home.style.minHeight = ""; }
    return report.violations.flatMap((fault) => fault.nodes.map((node) => ({
      rule: fault.id, target: node.target.flat().join(" "), help: fault.help, html: node.html.slice(0, 160),
    })));
  },
})
