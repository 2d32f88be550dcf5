// Numbers as people read them, three significant digits.
function digits(value) {
  if (!value) return "0";
  const before = Math.floor(Math.log10(Math.abs(value))) + 1, after = Math.min(Math.max(3 - before, 0), 6);
  return value.toLocaleString("en", { minimumFractionDigits: before > 0 ? after : 0, maximumFractionDigits: after });
}
function scaled(value, units) {
  const [name, size] = units.find(([, one]) => Math.abs(value) >= one * 0.9995) ?? units.at(-1);
  return `${digits(value / size)} ${name}`;
}
export function energy(kwh) { return scaled(kwh, [["GWh", 1e6], ["MWh", 1e3], ["kWh", 1]]); }
export function small(kwh) { return scaled(kwh, [["MWh", 1e3], ["kWh", 1], ["Wh", 1e-3]]); }
export function mass(grams) { return scaled(grams, [["t", 1e6], ["kg", 1e3], ["g", 1]]); }
export function hours(value) { return `${digits(value)} h`; }
export function money(value) { return value >= 99.995 ? Math.round(value).toLocaleString("en") : value >= 0.01 ? value.toFixed(2) : digits(value); }
export function usd(value) { return `${money(value)} USD`; }
export function range(row) { return `${money(row.cloud_low_usd)} – ${money(row.cloud_high_usd)}`; }
export function watts(value) { return `${value.toLocaleString("en", { maximumFractionDigits: value < 100 ? 1 : 0 })} W`; }
export function percent(part) { return `${(100 * part).toFixed(part > 0 && part < 0.1 ? 1 : 0)} %`; }
export function age(seconds) {
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return seconds < 259200 ? `${(seconds / 3600).toFixed(1)} h` : `${(seconds / 86400).toFixed(1)} d`;
}
/** A tick of an axis: no zeros after the point. */
export function axis(format) { return (value) => format(value).replace(/(\.\d*?)0+(?=\D|$)/, "$1").replace(/\.(?=\D|$)/, ""); }
