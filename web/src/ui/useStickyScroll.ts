/**
 * Keeps a list where its reader is: at the bottom it follows, elsewhere the topmost visible row stays in its place
 * whatever is added above, below, or removed.
 *
 * Messages carry `data-seq`; the rows between them come and go and are no anchors. Positions are those of the rows,
 * not differences of heights, so that trimming at the top and a window that changes its size need no case of their own.
 */
import { type RefObject, useCallback, useEffect, useLayoutEffect, useRef, useState } from "react";

/** Closer to the end than this counts as at the end. */
const BOTTOM_WITHIN_PX = 48;
/** Where the first unread row is put when a room is opened. */
const UNREAD_FROM_TOP_PX = 72;

interface Anchor {
  readonly seq: string;
  /** Pixels from the top of the window to the top of the row; negative when it is cut. */
  readonly offset: number;
}

export interface StickyScroll {
  readonly listRef: RefObject<HTMLDivElement | null>;
  readonly handleScroll: () => void;
  readonly isAtBottom: boolean;
  /** Pixels above the window, as of the last scroll or change. */
  readonly top: number;
  readonly jumpToBottom: () => void;
}

export function useStickyScroll(rows: readonly unknown[]): StickyScroll {
  const listRef = useRef<HTMLDivElement>(null);
  const anchor = useRef<Anchor>(undefined);
  const sticks = useRef(true);
  const [isAtBottom, setAtBottom] = useState(true);
  const [top, setTop] = useState(0);

  /** Remembers where the reader is. */
  const note = useCallback(() => {
    const list = listRef.current;
    if (!list) return;
    sticks.current = list.scrollHeight - list.scrollTop - list.clientHeight <= BOTTOM_WITHIN_PX;
    anchor.current = sticks.current ? undefined : topmostMessage(list);
    setAtBottom(sticks.current);
    setTop(list.scrollTop);
  }, []);

  /** Brings the reader back to where that is now. */
  const restore = useCallback(() => {
    const list = listRef.current;
    if (!list) return;
    if (sticks.current) {
      list.scrollTop = list.scrollHeight;
    } else if (anchor.current) {
      const row = list.querySelector<HTMLElement>(`[data-seq="${anchor.current.seq}"]`);
      if (row) list.scrollTop = row.offsetTop - anchor.current.offset;
    }
    note();
  }, [note]);

  useLayoutEffect(() => {
    const list = listRef.current;
    const unread = list?.querySelector<HTMLElement>("[data-unread]");
    if (!list || !unread) return;
    sticks.current = false;
    list.scrollTop = Math.max(0, unread.offsetTop - UNREAD_FROM_TOP_PX);
    note();
  }, [note]);

  useLayoutEffect(restore, [rows, restore]);

  useEffect(() => {
    const list = listRef.current;
    if (!list) return;
    // The window changes with a phone's keyboard, the contents with whatever unfolds in a row.
    const observer = new ResizeObserver(restore);
    observer.observe(list);
    for (const contents of list.children) observer.observe(contents);
    return () => observer.disconnect();
  }, [restore]);

  const jumpToBottom = useCallback(() => {
    sticks.current = true;
    restore();
  }, [restore]);

  return { listRef, handleScroll: note, isAtBottom, top, jumpToBottom };
}

/** The first message that is at least partly in the window; they stand in order, so halving finds it. */
function topmostMessage(list: HTMLElement): Anchor | undefined {
  const rows = list.querySelectorAll<HTMLElement>("[data-seq]");
  let low = 0;
  let high = rows.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    const row = rows[middle] as HTMLElement;
    if (row.offsetTop + row.offsetHeight > list.scrollTop) high = middle;
    else low = middle + 1;
  }
  const row = rows[low];
  return row && { seq: row.dataset["seq"] ?? "", offset: row.offsetTop - list.scrollTop };
}
