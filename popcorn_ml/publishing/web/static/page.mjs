// The page: choices, one or two maps in step, the legend, and what a click or a drawn area is told.
// Every text from a file goes into the page as text, never as markup.

import * as maplibre from './vendor/maplibre-gl.mjs';
import { Drawing, ringsOf } from './drawing.mjs';
import { LAYERS, classesOf, layersOf, painter } from './layers.mjs';
import { Raster, drawTile } from './rasters.mjs';
import { answerOfArea, answerOfPlace } from './answers.mjs';
import { element, say } from './text.mjs';

const TILE = 512;
const at = (id) => document.getElementById(id);
const state = { maps: [], panes: [], layer: 'people', level: 0, area: null };

class Published {
  constructor(entry) {
    Object.assign(this, entry);
    this.opened = {};
    this.read = {};
  }

  get key() { return `${this.code}_${this.year}`; }

  /** A raster by its role, opened once; undefined where there is none. */
  raster(role) {
    const told = this.rasters[role];
    if (told) this.opened[role] ??= new Raster(told.file, told.grid, told.crs);
    return this.opened[role];
  }

  /** Census units of a level as GeoJSON, read once. */
  units(level) {
    const file = this.levels[level]?.file;
    if (!file) return Promise.resolve({ type: 'FeatureCollection', features: [] });
    this.read[file] ??= json(file);
    return this.read[file];
  }
}

async function json(file) {
  const reply = await fetch(file);
  if (!reply.ok) throw new Error(`${file}: the server answers ${reply.status}`);
  return reply.json();
}

// popcorn://KEY/LAYER/Z/X/Y
maplibre.addProtocol('popcorn', async ({ url }) => {
  const [key, layerId, z, x, y] = url.slice('popcorn://'.length).split('/');
  const map = state.maps.find((one) => one.key === key);
  const layer = LAYERS.find((one) => one.id === layerId);
  const rasters = layer.roles.map((role) => map.raster(role));
  try {
    const image = await drawTile(rasters, +z, +x, +y, TILE, painter(layer, map));
    return { data: await createImageBitmap(image) };
  } catch (error) {
    trouble(`${map.title}: ${error.message}`);
    throw error;
  }
});

function trouble(text) {
  window.popcornTell(`Something could not be read. ${text}`);
}

class Pane {
  constructor(id) {
    this.id = id;
    this.map = new maplibre.Map({
      container: id,
      style: { version: 8, sources: {}, layers: [{ id: 'paper', type: 'background', paint: { 'background-color': '#e9edf1' } }] },
      attributionControl: false, dragRotate: false, pitchWithRotate: false, maxZoom: 17,
      fadeDuration: 0, renderWorldCopies: false,
    });
    this.map.touchZoomRotate.disableRotation();
    this.map.keyboard.disableRotation();
    this.map.addControl(new maplibre.NavigationControl({ showCompass: false }), 'top-right');
    this.map.addControl(new maplibre.ScaleControl({ maxWidth: 120, unit: 'metric' }), 'bottom-left');
    this.map.getCanvas().setAttribute('aria-label', 'Map. Arrow keys move it, plus and minus zoom, Enter asks at its middle.');
    this.ready = new Promise((resolve) => { this.map.once('load', resolve); });
    this.map.on('click', (event) => this.asked(event.lngLat));
    this.map.getCanvas().addEventListener('keydown', (event) => {
      if (event.key === 'Enter') this.asked(this.map.getCenter());
      if (event.key === 'Escape') drawing.stop();
    });
    this.marker = new maplibre.Marker({ color: '#0a4f8f', scale: 0.7 });
  }

  asked({ lng, lat }) {
    if (drawing.active) drawing.add([lng, lat]);
    else guarded(tellPlace)(lng, lat);
  }

  /** Show a published map with the chosen layer and units. */
  async show(published) {
    await this.ready;
    const { map } = this;
    if (!map.getSource('drawn')) drawing.addTo(this);
    const shown = `${published.key}/${state.layer}`;
    if (this.shown !== shown) {
      if (map.getLayer('cells')) map.removeLayer('cells');
      if (map.getSource('cells')) map.removeSource('cells');
      if (chosenLayer().roles.length && layersOf(published).includes(chosenLayer())) {
        map.addSource('cells', {
          type: 'raster', tiles: [`popcorn://${shown}/{z}/{x}/{y}`], tileSize: TILE,
          bounds: published.bounds, minzoom: 0, maxzoom: 16,
        });
        map.addLayer({ id: 'cells', type: 'raster', source: 'cells', paint: { 'raster-resampling': 'nearest', 'raster-fade-duration': 0 } }, map.getLayer('unit-lines') ? 'unit-lines' : 'drawn-fill');
      }
      this.shown = shown;
    }
    this.published = published;
    const outlines = `${published.key}/${state.level}`;
    if (this.outlines === outlines) return;
    this.outlines = outlines;
    if (!map.getSource('units')) { // the picture first: outlines of a large country are megabytes
      map.triggerRepaint();
      await map.once('idle');
      document.body.dataset.drawn ??= `${Math.round(performance.now())}`;
    }
    const units = await published.units(state.level);
    if (this.outlines !== outlines) return;
    if (map.getSource('units')) map.getSource('units').setData(units);
    else {
      map.addSource('units', { type: 'geojson', data: units, tolerance: 0.2 });
      map.addLayer({ id: 'unit-lines', type: 'line', source: 'units', paint: { 'line-color': '#1b1f24', 'line-width': ['interpolate', ['linear'], ['zoom'], 5, 0.4, 12, 1.2], 'line-opacity': 0.75 } });
      map.addLayer({ id: 'unit-names', type: 'symbol', source: 'units', minzoom: 9, layout: { 'text-field': ['get', 'name'], 'text-size': 11, 'text-font': ['sans-serif'] }, paint: { 'text-color': '#1b1f24', 'text-halo-color': '#ffffff', 'text-halo-width': 1.4 } });
      map.addLayer({ id: 'unit-chosen', type: 'line', source: 'units', filter: ['==', ['get', 'n'], -1], paint: { 'line-color': '#0a4f8f', 'line-width': 3 } });
      for (const id of ['drawn-fill', 'drawn-line', 'drawn-points']) map.moveLayer(id);
    }
  }

  choose(number) {
    if (this.map.getLayer('unit-chosen')) this.map.setFilter('unit-chosen', ['==', ['get', 'n'], number]);
  }
}

const chosenLayer = () => LAYERS.find((one) => one.id === state.layer);
const published = (select) => state.maps.find((one) => one.code === at('country').value && one.year === +at(select).value);
const visible = () => (at('compare').checked ? state.panes : state.panes.slice(0, 1));

async function tellPlace(lon, lat) {
  for (const pane of visible()) pane.marker.setLngLat([lon, lat]).addTo(pane.map);
  const box = at('answer');
  say(box, 'reading ...');
  const answers = [];
  for (const pane of visible()) answers.push(await answerOfPlace(pane.published, lon, lat, state.level));
  box.replaceChildren(...answers.flatMap((one) => one.shown));
  visible().forEach((pane, k) => pane.choose(answers[k].unit ?? -1));
  box.dataset.ready = `${(+box.dataset.ready || 0) + 1}`;
}

async function tellArea(rings) {
  const box = at('answer');
  state.area = rings;
  const answers = [];
  for (const pane of visible()) {
    answers.push(await answerOfArea(pane.published, rings, (share) => say(box, `adding up ... ${Math.min(Math.round(share * 100), 100)} %`)));
  }
  box.replaceChildren(...answers.flat());
  box.dataset.ready = `${(+box.dataset.ready || 0) + 1}`;
}

const guarded = (work) => (...of) => work(...of).catch((error) => {
  say(at('answer'), `That could not be told: ${error.message}`);
});

const drawing = new Drawing({
  draw: at('draw'), done: at('done'), clear: at('clear'), hint: at('hint'),
  finished: guarded(tellArea), cleared: () => { state.area = null; at('answer').replaceChildren(); },
});

function fill(select, options, chosen) {
  select.replaceChildren(...options.map(([value, text]) => element('option', { value }, text)));
  if (options.some(([value]) => `${value}` === `${chosen}`)) select.value = chosen;
}

function choicesOfCountry(year, other) {
  const maps = state.maps.filter((one) => one.code === at('country').value);
  const years = maps.map((one) => [one.year, `${one.year}`]).reverse();
  fill(at('year'), years, year);
  const others = years.map(([one]) => one).filter((one) => one !== +at('year').value);
  fill(at('other'), years, other ?? others.find((one) => one < +at('year').value) ?? others[0]);
  at('compare').disabled = years.length < 2;
  if (years.length < 2) at('compare').checked = false;
}

function choicesOfMap() {
  const map = published('year');
  const layers = layersOf(map);
  fill(at('layer'), layers.map((one) => [one.id, one.title]), state.layer);
  state.layer = at('layer').value;
  fill(at('level'), map.levels.map((one, k) => [k, one.title]), state.level);
  state.level = +at('level').value || 0;
  return map;
}

function legend(map) {
  const layer = chosenLayer();
  const told = layer.roles.length ? map.rasters[layer.roles.at(-1)] : null;
  const unit = layer.unit ?? told?.unit ?? '';
  const whole = unit.startsWith(layer.title.toLowerCase()) ? unit[0].toUpperCase() + unit.slice(1) : `${layer.title}, ${unit}`;
  const rows = classesOf(layer, map).map((one) => element('li', {}, element('span', { class: 'swatch', style: `background:${one.colour}` }), one.label)).reverse();
  at('legend').replaceChildren(
    element('h2', {}, unit && unit !== '1' ? whole : layer.title),
    element('ul', {}, ...rows), ...(layer.note ? [element('p', {}, layer.note)] : []),
  );
  at('legend').hidden = rows.length === 0;
}

function about(map) {
  const link = (file, text) => (file ? [element('a', { href: file }, text), ' '] : []);
  at('about').replaceChildren(
    element('h2', {}, map.title),
    ...map.summary.map((text) => element('p', {}, text)),
    ...map.left_out.map((text) => element('p', { class: 'note' }, text)),
    element('p', {}, ...link(map.report, 'Report'), ...link(map.facts, 'Facts'), ...link(map.catalogue, 'Catalogue')),
    element('p', {}, `Licence: ${map.licence}. ${map.attribution}`),
    element('p', {}, `To cite: ${map.citation}`),
  );
}

async function update({ fit = false } = {}) {
  const first = choicesOfMap();
  const both = at('compare').checked;
  at('other').disabled = !both;
  at('second').parentElement.hidden = !both;
  if (both && state.panes.length < 2) {
    state.panes.push(new Pane('second'));
    const [a, b] = state.panes.map((pane) => pane.map);
    const follow = (from, to) => from.on('move', (event) => {
      if (!event.inStep) to.jumpTo({ center: from.getCenter(), zoom: from.getZoom() }, { inStep: true });
    });
    b.jumpTo({ center: a.getCenter(), zoom: a.getZoom() });
    follow(a, b);
    follow(b, a);
  }
  const titles = both ? [first, published('other')] : [first];
  at('title').textContent = document.title = both ? `${first.title} and ${titles[1].year}` : first.title;
  ['map', 'second'].forEach((id, k) => { at(`year-of-${id}`).textContent = titles[k]?.year ?? ''; });
  for (const pane of state.panes) pane.map.resize();
  if (fit) state.panes.forEach(({ map }) => map.fitBounds(first.bounds, { padding: 24, animate: false }));
  legend(first);
  about(first);
  const parts = [first.code, first.year, state.layer, ...(both ? [titles[1].year] : [])];
  history.replaceState(null, '', `#${parts.join('/')}`);
  await Promise.all(titles.map((map, k) => state.panes[k].show(map)));
}

async function begin() {
  if (!maplibre.Map) throw new Error('MapLibre did not load');
  const told = await json('web/maps.json');
  state.maps = told.maps.map((entry) => new Published(entry));
  if (!state.maps.length) {
    at('choices').hidden = true;
    say(at('answer'), 'No map is published here yet. When one is, reload this page.');
    return;
  }
  const [code, year, layer, other] = decodeURIComponent(location.hash.slice(1)).split('/');
  if (LAYERS.some((one) => one.id === layer)) state.layer = layer;
  const countries = [...new Map(state.maps.map((one) => [one.code, one.name]))];
  fill(at('country'), countries, code);
  choicesOfCountry(year, other);
  at('compare').checked = Boolean(other) && !at('compare').disabled;
  state.panes = [new Pane('map')];
  at('country').onchange = () => { choicesOfCountry(); state.level = 0; update({ fit: true }).catch(report); };
  for (const id of ['year', 'other', 'compare']) at(id).onchange = () => update().catch(report);
  at('layer').onchange = () => { state.layer = at('layer').value; update().catch(report); };
  at('level').onchange = () => { state.level = +at('level').value; update().catch(report); };
  at('file').onchange = guarded(async () => {
    const rings = ringsOf(JSON.parse(await at('file').files[0].text()));
    drawing.show(rings);
    await tellArea(rings);
  });
  await update({ fit: true });
}

const report = (error) => trouble(error.message);
window.popcorn = state; // for looking at from the console
if (location.protocol !== 'file:') begin().catch(report);
