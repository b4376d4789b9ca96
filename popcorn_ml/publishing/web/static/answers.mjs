// What a click and a drawn area are told: the numbers of the files, and what they may be off by.

import { adjustedVariance, measure, quantiles } from './areas.mjs';
import { between, element, known, row } from './text.mjs';

const heading = (map) => element('h2', {}, `${map.name}, ${map.year}`);

function intervals(low95, low80, high80, high95) {
  if (low95 === high95) {
    const made = between('interval', low95, high95);
    made.lastChild.textContent = 'none: it is the count';
    return [made];
  }
  return [between('80 % interval', low80, high80), between('95 % interval', low95, high95)];
}

/** Whether a place lies in a polygon or several of GeoJSON (even-odd over all rings). */
export function holds(geometry, lon, lat) {
  const polygons = geometry.type === 'MultiPolygon' ? geometry.coordinates : [geometry.coordinates];
  return polygons.some((rings) => {
    let inside = false;
    for (const ring of rings) {
      for (let i = 0, j = ring.length - 1; i < ring.length; j = i, i += 1) {
        const [[x0, y0], [x1, y1]] = [ring[i], ring[j]];
        if ((y0 > lat) !== (y1 > lat) && lon < x0 + ((lat - y0) / (y1 - y0)) * (x1 - x0)) inside = !inside;
      }
    }
    return inside;
  });
}

function unitAt(units, lon, lat) {
  return units.features.find(({ bbox: [west, south, east, north], geometry }) =>
    lon >= west && lon <= east && lat >= south && lat <= north && holds(geometry, lon, lat));
}

async function cell(map, role, lon, lat) {
  const raster = map.raster(role);
  return raster ? (await raster.values(lon, lat))?.values ?? null : null;
}

/** People of the hectare and of the unit at a place. */
export async function answerOfPlace(map, lon, lat, level) {
  const roles = ['population', 'intervals', 'reliability', 'change'];
  const [people, range, reliable, change] = await Promise.all(roles.map((role) => cell(map, role, lon, lat)));
  const shown = [heading(map), element('h3', {}, `This ${map.cell}`)];
  if (!people || Number.isNaN(people[0])) shown.push(element('p', { class: 'note' }, 'The map says nothing here.'));
  else {
    const rows = [row('people', people[0])];
    if (range && known(range[0])) rows.push(...intervals(...range));
    if (change && known(change[0])) {
      rows.push(row('change', change[0]), between('95 % interval of the change', change[1], change[4]));
      rows.push(row('told apart from no change', NaN, change[5] === 0 ? 'no' : 'yes'));
    }
    shown.push(table('cell', rows));
    if (reliable && reliable[0] === 0) shown.push(element('p', { class: 'note warn' }, 'Not to be used at this scale: add it up with its neighbours.'));
  }
  const unit = unitAt(await map.units(level), lon, lat);
  shown.push(...(unit ? tellUnit(map, unit.properties) : [element('p', { class: 'note' }, 'No census unit here.')]));
  const [x, y] = [Math.abs(lon).toFixed(5), Math.abs(lat).toFixed(5)];
  shown.push(element('p', { class: 'note' }, `${y}° ${lat < 0 ? 'south' : 'north'}, ${x}° ${lon < 0 ? 'west' : 'east'}`));
  return { shown, unit: unit?.properties.n };
}

function tellUnit(map, of) {
  const rows = [row('people', of.adjusted)];
  if (known(of.adjusted_p2_5)) rows.push(...intervals(of.adjusted_p2_5, of.adjusted_p10, of.adjusted_p90, of.adjusted_p97_5));
  if (known(of.census)) rows.push(row(of.census_kind ?? 'census', of.census));
  rows.push(row('by the model alone', of.map));
  if (known(of.p2_5)) rows.push(between('its 95 % interval', of.p2_5, of.p97_5));
  if (known(of.change)) rows.push(row(`change since ${of.change_from}`, of.change), between('its 95 % interval', of.change_p2_5, of.change_p97_5));
  rows.push(row('people per km²', of.density_km2));
  return [element('h3', {}, of.name ? `${of.name} (${of.unit_id})` : of.unit_id), element('p', { class: 'note' }, `census unit, ${of.level}`), table('unit', rows)];
}

const table = (id, rows) => element('table', { class: id }, element('tbody', {}, ...rows));

let law = null;

/** People of an area and their interval. `rings`: of [longitude, latitude]. */
export async function answerOfArea(map, rings, progress) {
  const roles = ['population', 'population_pixels', 'units'];
  const rasters = Object.fromEntries(roles.map((role) => [role, map.raster(role)]));
  const found = await measure(map, rasters, rings, progress);
  const shown = [heading(map), element('h3', {}, 'The area drawn')];
  if (!found.cells) return [...shown, element('p', { class: 'note' }, 'The map says nothing in it.')];
  const rows = [row('people', found.people)];
  let note = map.why_no_intervals;
  if (map.error_model && rasters.units) {
    law ??= fetch('web/law.json').then((reply) => reply.json());
    const { constants, quantiles: tables } = await law;
    const model = { ...map.error_model, law: { ...map.error_model.law, ...constants } };
    const spread2 = adjustedVariance(model, found.parts, map.units_measured);
    if (Number.isNaN(spread2)) note = 'No interval: in a part of the area people were spread evenly, without the model.';
    else {
      rows.push(...intervals(...quantiles(model, tables, found.people, spread2)));
      note = '';
    }
  }
  const touched = [...found.parts.keys()].filter(Boolean).length;
  if (rasters.units) rows.push(row('census units touched', touched, `${touched}`));
  shown.push(table('area', rows));
  const by = found.whole ? 'Summed by whole cells whose centre lies inside, since the area is large; the interval is near the exact one.' : 'Summed by pixels whose centre lies inside.';
  shown.push(element('p', { class: 'note' }, by));
  if (note) shown.push(element('p', { class: 'note warn' }, note));
  return shown;
}
