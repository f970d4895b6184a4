// Statements over time, stacked by class.
//
// Owns what is painted: the stack, the usual range as a line of its own colour, and hatched where something was not seen or no agent told
// anything. Colours are those of the style sheet. What the picture says stands in words below it, too.

import type { JSX } from "preact";
import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import type { Gap, Series, Usual } from "../series.ts";
import { CLASSES } from "../series.ts";
import { compact, plural, seconds } from "../numbers.ts";
import { painted } from "../theme.ts";
import { millis } from "../time.ts";

interface Props {
  series: Series;
  usual: Usual | null;
  gaps: Gap[];
  label: string;
  height?: number;
  /** A time was chosen by dragging: Unix seconds. */
  chosen?: (from: number, to: number) => void;
}

const COLOURS: Record<string, string> = {
  READ: "--read",
  WRITE: "--write",
  FUNCTION: "--function",
  DDL: "--ddl",
  ROLE: "--role",
  MISC: "--misc",
  MISC_SET: "--misc",
  unknown: "--bad",
};

export const shown = (series: Series): string[] => CLASSES.filter((one) => series.counts[one]?.some((n) => n > 0));

export function Chart({ series, usual, gaps, label, height = 190, chosen }: Props): JSX.Element {
  const box = useRef<HTMLDivElement>(null);
  const colours = painted.value;
  useEffect(() => {
    const at = box.current;
    if (!at) return;
    const chart = paint(at, series, usual, gaps, height, chosen);
    const wide = new ResizeObserver(() => chart.setSize({ width: at.clientWidth, height }));
    wide.observe(at);
    return () => {
      wide.disconnect();
      chart.destroy();
    };
  }, [series, usual, gaps, colours, height]);
  return (
    <figure class="chart">
      <div ref={box} class="plot" style={{ height: `${height}px` }} role="img" aria-label={`${label}. ${inWords(series)}`} />
      <figcaption class="legend">
        {shown(series).map((one) => (
          <span key={one} class={`of-${one}`}>
            <i /> {one} {compact(series.counts[one]!.reduce((a, b) => a + b, 0))}
          </span>
        ))}
        {usual && usual.times > 0 && (
          <span class="of-usual">
            <i /> least and most of the same time, {plural(usual.times, `earlier ${usual.of}`)}
          </span>
        )}
        {gaps.length > 0 && (
          <span class="of-gap">
            <i /> not everything was seen
          </span>
        )}
        {series.silent.some(Boolean) && (
          <span class="of-silent">
            <i /> no agent told anything
          </span>
        )}
        <span>per {seconds(series.step)}</span>
      </figcaption>
    </figure>
  );
}

function inWords(series: Series): string {
  return shown(series)
    .map((one) => `${one} ${compact(series.counts[one]!.reduce((a, b) => a + b, 0))}`)
    .join(", ");
}

function paint(at: HTMLElement, series: Series, usual: Usual | null, gaps: Gap[], height: number, chosen: Props["chosen"]): uPlot {
  const colour = (name: string): string => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const classes = shown(series).toReversed();
  // The stack: each class stands on those before it, so the whole is painted first.
  const sums: number[][] = [];
  let below = series.x.map(() => 0);
  for (const one of classes.toReversed()) {
    below = below.map((n, place) => n + series.counts[one]![place]!);
    sums.unshift(below);
  }
  const [soft, line] = [colour("--soft"), colour("--line")];
  const axis: uPlot.Axis = { stroke: soft, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1, size: 4 }, font: "11px system-ui, sans-serif" };
  const bars = uPlot.paths.bars!({ size: [1, 100], align: 1, gap: series.x.length > 90 ? 0 : 1 });
  const range = { stroke: colour("--ink"), width: 1, dash: [2, 3], points: { show: false }, spanGaps: false, paths: uPlot.paths.stepped!({ align: 1 }) };
  const options: uPlot.Options = {
    width: Math.max(120, at.clientWidth),
    height,
    tzDate: (ts) => uPlot.tzDate(new Date(ts * 1000), "Etc/UTC"),
    legend: { show: false },
    cursor: { drag: { x: chosen != null, y: false }, points: { show: false }, y: false },
    padding: [8, 18, 0, 0],
    scales: {
      x: { time: true, range: [series.x[0]!, series.x.at(-1)! + series.step] },
      y: { range: (_, __, most) => [0, Math.max(1, most * 1.06)] },
    },
    axes: [{ ...axis, size: 28, values: (_, ticks, __, ___, apart) => ticks.map((at) => tick(at, apart)) }, { ...axis, size: 52, values: (_, ticks) => ticks.map((n) => (Number.isInteger(n) ? compact(n) : "")) }],
    series: [
      {},
      ...classes.map((one) => ({ label: one, fill: colour(COLOURS[one]!), width: 0, paths: bars, points: { show: false } })),
      ...(usual && usual.times > 0 ? [{ label: "least", ...range }, { label: "most", ...range }] : []),
    ],
    hooks: {
      drawClear: [(plot) => shade(plot, series, gaps, colour("--gap"), colour("--silent"))],
      // A gap of a moment would be lost behind the bars: its edge stands before them.
      draw: [(plot) => shade(plot, NOTHING, gaps, colour("--bad"), "", EDGE_PX)],
      setSelect: [
        (plot) => {
          if (!chosen || plot.select.width < 4) return;
          chosen(plot.posToVal(plot.select.left, "x"), plot.posToVal(plot.select.left + plot.select.width, "x"));
        },
      ],
    },
  };
  const data = [series.x, ...sums, ...(usual && usual.times > 0 ? [usual.low, usual.high] : [])] as uPlot.AlignedData;
  return new uPlot(options, data, at);
}

const NOTHING: Series = { x: [], step: 1, counts: {}, silent: [], begins: null };
const EDGE_PX = 4;

/** Twenty-four hours, UTC; the day where it begins. */
function tick(at: number, apart: number): string {
  const text = new Date(at * 1000).toISOString();
  if (apart >= 86_400 || at % 86_400 === 0) return text.slice(5, 10);
  return apart >= 60 ? text.slice(11, 16) : text.slice(11, 19);
}

/** Behind everything else: what was not seen. */
function shade(plot: uPlot, series: Series, gaps: Gap[], gap: string, silent: string, high?: number): void {
  const { ctx, bbox } = plot;
  const bar = (from: number, to: number, fill: string): void => {
    const left = Math.max(bbox.left, plot.valToPos(from, "x", true));
    const right = Math.min(bbox.left + bbox.width, plot.valToPos(to, "x", true));
    if (right < bbox.left || left > bbox.left + bbox.width) return;
    ctx.fillStyle = fill;
    ctx.fillRect(left, bbox.top, Math.max(2 * devicePixelRatio, right - left), high ? high * devicePixelRatio : bbox.height);
  };
  ctx.save();
  series.silent.forEach((none, n) => none && bar(series.x[n]!, series.x[n]! + series.step, silent));
  // Many gaps of one moment are one place: they must not become darker than each other.
  const places = gaps.map((one) => [millis(one.ts_start) / 1000, millis(one.ts_end ?? one.ts_start) / 1000] as [number, number]).sort((a, b) => a[0] - b[0]);
  let [from, to] = [Number.NaN, Number.NaN];
  for (const [start, end] of places) {
    if (start <= to) to = Math.max(to, end);
    else {
      if (!Number.isNaN(from)) bar(from, to, gap);
      [from, to] = [start, end];
    }
  }
  if (!Number.isNaN(from)) bar(from, to, gap);
  ctx.restore();
}
