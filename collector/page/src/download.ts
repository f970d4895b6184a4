// Answers that become files.
//
// Owns the way of large ones: piece by piece into a file that the reader chose, where the browser can, else into blobs, which a browser lays
// on disk; never all of it in the page's memory. A file has its name only when it is whole.

/** Where pieces go. */
export interface Sink {
  write: (piece: Uint8Array<ArrayBuffer>) => Promise<void>;
  whole: () => Promise<void>;
  /** Leaves nothing. */
  broken: () => Promise<void>;
}

/** For a file of this name. It has to be called right behind a click; null: the reader wants none. */
export async function sink(name: string, type: string): Promise<Sink | null> {
  const pick = (globalThis as Picker).showSaveFilePicker;
  if (pick) {
    try {
      return await toFile(await pick.call(globalThis, { suggestedName: name }));
    } catch (error) {
      if ((error as Error).name === "AbortError") return null;
      // Not allowed here, within a frame of another origin, say: the other way works everywhere.
    }
  }
  return toBlobs(name, type);
}

interface Picker {
  showSaveFilePicker?: (options: { suggestedName: string }) => Promise<FileSystemFileHandle>;
}

/** It is written beside the file, and takes its place when it is closed. */
async function toFile(file: FileSystemFileHandle): Promise<Sink> {
  const out = await file.createWritable();
  return { write: (piece) => out.write(piece), whole: () => out.close(), broken: () => out.abort().catch(() => undefined) };
}

function toBlobs(name: string, type: string): Sink {
  const laid: Blob[] = [];
  let held: Uint8Array<ArrayBuffer>[] = [];
  let size = 0;
  const lay = (): void => {
    laid.push(new Blob(held));
    held = [];
    size = 0;
  };
  const write = async (piece: Uint8Array<ArrayBuffer>): Promise<void> => {
    held.push(piece);
    size += piece.length;
    if (size >= LAID_BYTES) lay();
  };
  const whole = async (): Promise<void> => {
    lay();
    save(name, new Blob(laid, { type }));
  };
  const broken = async (): Promise<void> => {
    laid.length = held.length = 0;
  };
  return { write, whole, broken };
}

/** The whole body of an answer; `told` how much there is already. What breaks off leaves no file. */
export async function pour(answer: Response, to: Sink, told: (bytes: number) => void): Promise<void> {
  let bytes = 0;
  try {
    const reader = answer.body!.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      await to.write(value);
      bytes += value.length;
      told(bytes);
    }
  } catch (error) {
    await to.broken();
    throw error;
  }
  await to.whole();
}

/** What is at hand already. */
export function save(name: string, of: Blob): void {
  const at = URL.createObjectURL(of);
  const link = document.createElement("a");
  link.href = at;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(at), REVOKED_MS);
}

/** Of a text from a stranger, what every system takes for a name. */
export const fileName = (text: string): string => text.replace(/[^\w.-]/g, "_");

const LAID_BYTES = 4 * 1024 * 1024;
/** Long enough for a browser that asks where to put it. */
const REVOKED_MS = 120_000;
