// Lists, short and long.
//
// Owns that a long list has only the rows in the page that are looked at, and that every row can be reached and opened by keys (see keys.ts:
// what bears data-row is a row). Rows of a long list are equally high.

import type { ComponentChildren, JSX } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";

export interface Column<T> {
  title: string;
  /** `n`: figures, to the right. `hide-s`: not on a phone. */
  class?: string;
  cell: (row: T) => ComponentChildren;
}

interface Props<T> {
  label: string;
  columns: Column<T>[];
  rows: T[];
  id: (row: T, n: number) => string;
  /** What opens when a row is chosen. */
  open?: (row: T) => void;
  /** Longer lists are scrolled within. */
  tall?: boolean;
  mark?: (row: T) => string;
}

export function Table<T>(props: Props<T>): JSX.Element {
  return props.rows.length > VIRTUAL_FROM || props.tall ? <Long {...props} /> : <Short {...props} />;
}

function Head<T>({ columns }: { columns: Column<T>[] }): JSX.Element {
  return (
    <thead>
      <tr>
        {columns.map((column) => (
          <th key={column.title} scope="col" class={column.class}>
            {column.title}
          </th>
        ))}
      </tr>
    </thead>
  );
}

function Row<T>({ of, n, columns, open, mark, high }: { of: T; n: number; columns: Column<T>[]; open?: (row: T) => void; mark?: (row: T) => string; high?: boolean }): JSX.Element {
  // A click on a link within is the link's.
  const chosen = (at: MouseEvent): void => {
    if (open && !(at.target as Element).closest("a,button")) open(of);
  };
  return (
    <tr data-row={open ? n : undefined} tabIndex={open ? 0 : undefined} class={mark?.(of) ?? ""} aria-rowindex={high ? n + 2 : undefined} onClick={chosen}>
      {columns.map((column) => (
        <td key={column.title} class={column.class}>
          {high ? <div class="cell">{column.cell(of)}</div> : column.cell(of)}
        </td>
      ))}
    </tr>
  );
}

function Short<T>({ label, columns, rows, id, open, mark }: Props<T>): JSX.Element {
  return (
    <div class="scroll" role="group" aria-label={label} tabIndex={0}>
      <table>
        <Head columns={columns} />
        <tbody>
          {rows.map((row, n) => (
            <Row key={id(row, n)} of={row} n={n} columns={columns} open={open} mark={mark} />
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Long<T>({ label, columns, rows, id, open, mark }: Props<T>): JSX.Element {
  const box = useRef<HTMLDivElement>(null);
  const [at, set] = useState({ from: 0, high: 600 });
  const px = NARROW.matches ? NARROW_ROW_PX : ROW_PX;
  const look = (): void => {
    const one = box.current;
    if (one) set({ from: Math.max(0, Math.floor(one.scrollTop / (NARROW.matches ? NARROW_ROW_PX : ROW_PX)) - OVERSCAN), high: one.clientHeight });
  };
  useLayoutEffect(() => {
    look();
    addEventListener("resize", look);
    return () => removeEventListener("resize", look);
  }, []);
  const from = Math.min(at.from, Math.max(0, rows.length - 1));
  const to = Math.min(rows.length, from + Math.ceil(at.high / px) + 2 * OVERSCAN);
  return (
    <div class="scroll long" role="group" aria-label={label} tabIndex={0} ref={box} onScroll={look}>
      <table aria-rowcount={rows.length + 1}>
        <Head columns={columns} />
        <tbody>
          <Space px={from * px} span={columns.length} />
          {rows.slice(from, to).map((row, n) => (
            <Row key={id(row, from + n)} of={row} n={from + n} columns={columns} open={open} mark={mark} high />
          ))}
          <Space px={(rows.length - to) * px} span={columns.length} />
        </tbody>
      </table>
    </div>
  );
}

/** Stands for the rows that are not in the page. */
function Space({ px, span }: { px: number; span: number }): JSX.Element | null {
  if (px <= 0) return null;
  return (
    <tr class="space" aria-hidden="true">
      <td colSpan={span} style={{ height: `${px}px` }} />
    </tr>
  );
}

/** As in the style sheet. */
const ROW_PX = 46;
const NARROW_ROW_PX = 70;
const NARROW = matchMedia("(max-width: 860px)");
const OVERSCAN = 8;
const VIRTUAL_FROM = 60;
