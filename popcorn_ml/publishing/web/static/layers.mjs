// What the map can show: which rasters a layer needs, and the colour of each of its cells.

const WIDTHS = [
  [0.25, '#f7fcfd', 'below 25 %'], [0.5, '#e0ecf4', '25 to 50 %'], [1, '#bfd3e6', '50 to 100 %'],
  [2, '#9ebcda', '100 to 200 %'], [4, '#8c96c6', '200 to 400 %'], [8, '#88419d', '400 to 800 %'],
  [null, '#4d004b', '800 % and more'],
].map(([upper, colour, label]) => ({ upper, colour, label }));

const own = (classes) => classes;

export const LAYERS = [
  {
    id: 'people', title: 'People', roles: ['population'], classes: own,
    value: ([[people]], i) => people[i],
  },
  {
    id: 'interval', title: 'Width of the interval', roles: ['population', 'intervals'],
    classes: () => WIDTHS, unit: '95 % interval over the people',
    note: 'Cells with fewer than one person are left blank: there any share is large.',
    value: ([[people], [low, , , high]], i) => (people[i] >= 1 ? (high[i] - low[i]) / people[i] : NaN),
  },
  {
    id: 'change', title: 'Change', roles: ['change'], classes: own,
    note: 'Pale: not told apart from no change.',
    value: ([bands], i) => bands[0][i],
    pale: ([bands], i) => bands[5] !== undefined && Math.abs(bands[5][i]) < 0.5,
  },
  {
    id: 'builtup', title: 'Built-up score', roles: ['builtup'],
    classes: ([first, ...rest]) => [{ ...first, colour: '#f4f4ee' }, ...rest],
    value: ([[score]], i) => score[i],
  },
  { id: 'none', title: 'Census units alone', roles: [], classes: () => [] },
];

/** Layers that a published map has the rasters for. */
export const layersOf = (map) => LAYERS.filter((one) => one.roles.every((role) => map.rasters[role]));

export function classesOf(layer, map) {
  if (!layer.roles.length) return [];
  return layer.classes(map.rasters[layer.roles[layer.roles.length - 1]].classes);
}

function packed(colour, alpha) {
  const [r, g, b] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return ((alpha << 24) | (b << 16) | (g << 8) | r) >>> 0;
}

/** The painter of `drawTile`: the class that a value is in gives the colour. */
export function painter(layer, map) {
  const classes = classesOf(layer, map);
  const uppers = classes.map((one) => one.upper ?? Infinity);
  const strong = classes.map((one) => packed(one.colour, 235));
  const faint = classes.map((one) => packed(one.colour, 90));
  return (bands, i) => {
    const value = layer.value(bands, i);
    if (Number.isNaN(value)) return 0;
    let at = 0;
    while (at < uppers.length - 1 && value >= uppers[at]) at += 1;
    return layer.pale?.(bands, i) ? faint[at] : strong[at];
  };
}
