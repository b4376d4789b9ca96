// Elements and numbers as text.

/** An element with attributes and children; strings become text, never markup. */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === 'style') made.style.cssText = value;
    else made.setAttribute(key, value);
  }
  made.append(...children.map((child) => (typeof child === 'number' ? `${child}` : child)));
  return made;
}

export const say = (box, text) => box.replaceChildren(element('p', { class: 'note' }, text));

/** People: whole from a hundred on, with a decimal below; "unknown" where there is no number. */
export function people(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return 'unknown';
  const digits = Math.abs(value) < 100 ? 1 : 0;
  return value.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits, signDisplay: 'negative' }); // no -0.0
}

/** A row of a table; the exact number is kept as `data-value`. */
export function row(label, value, told = people(value)) {
  const known = typeof value === 'number' && !Number.isNaN(value);
  return element('tr', {}, element('th', { scope: 'row' }, label), element('td', known ? { 'data-value': value, 'data-of': label } : { 'data-of': label }, told));
}

/** An interval as a row: "low to high", both kept exactly. */
export function between(label, low, high) {
  const made = row(label, NaN, `${people(low)} to ${people(high)}`);
  Object.assign(made.lastChild.dataset, { low, high });
  return made;
}

export const known = (value) => typeof value === 'number' && !Number.isNaN(value);
