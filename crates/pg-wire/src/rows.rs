//! Values of chosen columns in the rows of an answer: whose records came back. Rows stream past; of a row nothing is kept
//! but the chosen values, and of a result without chosen columns nothing at all is looked at. Separate from `values`, where
//! every value is counted.

use std::fmt;
use std::sync::Arc;

use crate::capture::BUSY_BUFFER_BYTES;
use crate::exchange::{Column, Format};

/// Says which columns of a result are to be kept: places among the columns, ascending. The text is that of the statement
/// whose result it is, as sent (of EXECUTE and FETCH what they run); `None` if that is not known for sure.
pub type RowsOf = Arc<dyn Fn(Option<&[u8]>, &[Column]) -> Vec<u16> + Send + Sync>;

/// What the rows of one result held in the chosen columns. Rows that repeat the one before them are kept once: a join
/// repeats what identifies.
#[derive(Clone, PartialEq, Eq)]
pub struct KeptRows {
    columns: Arc<[KeptColumn]>,
    /// In the order of the rows, `columns` of them for each; `None` is NULL.
    values: Vec<Option<(u32, u32)>>,
    bytes: Vec<u8>,
    rows: u64,
    complete: bool,
}

/// A chosen column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptColumn {
    /// Its place among the columns of the result.
    pub index: u16,
    /// How its values are written.
    pub format: Format,
}

impl KeptRows {
    pub(crate) fn new(columns: Arc<[KeptColumn]>) -> Self {
        Self {
            columns,
            values: Vec::new(),
            bytes: Vec::new(),
            rows: 0,
            complete: true,
        }
    }

    /// The chosen columns.
    pub fn columns(&self) -> &[KeptColumn] {
        &self.columns
    }

    /// The values of the chosen column at `place` among the chosen ones; `None` is NULL.
    pub fn values(&self, place: usize) -> impl Iterator<Item = Option<&[u8]>> {
        let values = self.values.iter().skip(place).step_by(self.columns.len().max(1));
        values.map(|value| {
            value.map(|(from, to)| self.bytes.get(from as usize..to as usize).unwrap_or_default())
        })
    }

    /// Whether the values of all rows are here.
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// How many rows were looked at.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Not all values are here.
    pub(crate) fn doubt(&mut self) {
        self.complete = false;
    }

    pub(crate) fn shared_columns(&self) -> &Arc<[KeptColumn]> {
        &self.columns
    }

    pub(crate) fn retained_bytes(&self) -> usize {
        size_of::<Self>() + self.values.capacity() * size_of::<Option<(u32, u32)>>() + self.bytes.capacity()
    }

    /// Adds a row if there is `room` for it; gives the room that it takes. `None`: what comes after it is not wanted any
    /// more.
    pub(crate) fn keep(&mut self, row: &Row, room: usize) -> Option<usize> {
        self.rows += 1;
        if row.heads.len() != self.columns.len() || row.heads.iter().any(|head| head.incomplete) || row.lost {
            // A value that is not whole is none; the others of the row would not tell that one is missing.
            self.complete = false;
            return Some(0);
        }
        if self.repeats(row) {
            return Some(0);
        }
        let cost = row.kept.len() + row.heads.len() * VALUE_COST;
        if cost > room {
            self.complete = false;
            return None;
        }
        for head in &row.heads {
            let from = u32::try_from(self.bytes.len()).ok()?;
            self.values.push(match head.is_null {
                true => None,
                false => {
                    self.bytes.extend_from_slice(row.value(head));
                    Some((from, u32::try_from(self.bytes.len()).ok()?))
                }
            });
        }
        Some(cost)
    }

    fn repeats(&self, row: &Row) -> bool {
        let Some(start) = self.values.len().checked_sub(self.columns.len()) else {
            return false;
        };
        let last = self.values.get(start..).unwrap_or_default();
        last.iter().zip(&row.heads).all(|(last, head)| match last {
            None => head.is_null,
            Some((from, to)) => {
                !head.is_null && self.bytes.get(*from as usize..*to as usize) == Some(row.value(head))
            }
        })
    }
}

/// What a kept value costs beside its bytes, where it may double.
const VALUE_COST: usize = 2 * size_of::<Option<(u32, u32)>>();

/// Without content.
impl fmt::Debug for KeptRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeptRows")
            .field("columns", &self.columns)
            .field("values", &self.values.len())
            .field("complete", &self.complete)
            .finish_non_exhaustive()
    }
}

/// One DataRow as it streams past: a count, then each value behind its length (manual, "Message Formats").
#[derive(Default)]
pub(crate) struct Row {
    wanted: Arc<[KeptColumn]>,
    place: Place,
    number: [u8; 4],
    have: usize,
    /// Of the chosen columns that were reached.
    heads: Vec<Head>,
    kept: Vec<u8>,
    lost: bool,
}

struct Head {
    from: usize,
    to: usize,
    is_null: bool,
    /// Cut at a cap, or by a gap.
    incomplete: bool,
}

/// Where in the row the next byte is.
#[derive(Clone, Copy, Default)]
enum Place {
    #[default]
    Count,
    Length {
        column: u16,
    },
    /// In the value of `column`, of which `bytes` are still to come.
    Value {
        column: u16,
        bytes: u64,
        chosen: bool,
    },
}

impl Row {
    /// From the next row on these columns are wanted.
    pub(crate) fn want(&mut self, columns: &Arc<[KeptColumn]>) {
        if !Arc::ptr_eq(&self.wanted, columns) {
            self.wanted = Arc::clone(columns);
        }
    }

    /// From the next row on none is.
    pub(crate) fn want_none(&mut self) {
        if !self.wanted.is_empty() {
            self.wanted = Arc::default();
        }
    }

    /// Gets ready for a row; whether anything of it is wanted.
    pub(crate) fn start(&mut self) -> bool {
        self.place = Place::Count;
        self.have = 0;
        self.lost = false;
        self.heads.clear();
        self.kept.clear();
        self.kept.shrink_to(BUSY_BUFFER_BYTES);
        !self.wanted.is_empty()
    }

    /// Takes bytes up to the last chosen value; whether that was reached. At most `cap` bytes are kept of a value.
    pub(crate) fn feed(&mut self, piece: &[u8], cap: usize) -> (usize, bool) {
        let mut rest = piece;
        let mut done = self.is_done();
        while !rest.is_empty() && !done {
            match self.place {
                Place::Value {
                    column,
                    bytes,
                    chosen,
                } => {
                    let length = usize::try_from(bytes).unwrap_or(usize::MAX).min(rest.len());
                    let (part, behind) = rest.split_at_checked(length).unwrap_or((rest, &[]));
                    if chosen {
                        self.take(part, cap);
                    }
                    rest = behind;
                    self.place = after(column, bytes - part.len() as u64, chosen);
                }
                // How many columns there are was described; a row of fewer ends before the chosen one.
                Place::Count => {
                    if self.number::<2>(&mut rest).is_some() {
                        self.place = Place::Length { column: 0 };
                    }
                }
                Place::Length { column } => {
                    if let Some(number) = self.number::<4>(&mut rest) {
                        // -1 is NULL.
                        let bytes = u32::try_from(i32::from_be_bytes(number)).ok();
                        let chosen = self.next_wanted() == Some(column);
                        if chosen {
                            let from = self.kept.len();
                            self.heads.push(Head {
                                from,
                                to: from,
                                is_null: bytes.is_none(),
                                incomplete: false,
                            });
                        }
                        self.place = after(column, u64::from(bytes.unwrap_or(0)), chosen);
                    }
                }
            }
            done = self.is_done();
        }
        (piece.len() - rest.len(), done)
    }

    /// Missing bytes within one value are stepped over; where they hide more, the row is lost.
    pub(crate) fn bridge(&mut self, missing: u64) {
        match self.place {
            Place::Value {
                column,
                bytes,
                chosen,
            } if missing <= bytes => {
                if let (true, Some(head)) = (chosen, self.heads.last_mut()) {
                    head.incomplete = true;
                }
                self.place = after(column, bytes - missing, chosen);
            }
            _ => self.lost = true,
        }
    }

    /// A value of this column comes next, and is given by [`take`](Row::take); whether it is wanted.
    pub(crate) fn begin(&mut self, column: u16) -> bool {
        let chosen = self.next_wanted() == Some(column);
        if chosen {
            let from = self.kept.len();
            self.heads.push(Head {
                from,
                to: from,
                is_null: false,
                incomplete: false,
            });
        }
        chosen
    }

    /// The value that was begun last is NULL.
    pub(crate) fn set_null(&mut self) {
        if let Some(head) = self.heads.last_mut() {
            (head.to, head.is_null) = (head.from, true);
        }
    }

    /// Whether the row cannot be read on.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost
    }

    pub(crate) fn retained_bytes(&self) -> usize {
        self.heads.capacity() * size_of::<Head>() + self.kept.capacity()
    }

    fn value(&self, head: &Head) -> &[u8] {
        self.kept.get(head.from..head.to).unwrap_or_default()
    }

    /// The chosen column that comes next.
    fn next_wanted(&self) -> Option<u16> {
        self.wanted.get(self.heads.len()).map(|column| column.index)
    }

    fn is_done(&self) -> bool {
        !matches!(self.place, Place::Value { chosen: true, .. }) && self.next_wanted().is_none()
    }

    pub(crate) fn take(&mut self, part: &[u8], cap: usize) {
        let Some(head) = self.heads.last_mut() else {
            return;
        };
        let room = cap.saturating_sub(head.to - head.from);
        head.incomplete |= part.len() > room;
        if !head.incomplete {
            self.kept.extend_from_slice(part);
            head.to += part.len();
        }
    }

    /// A number of `N` bytes, which may come in pieces.
    fn number<const N: usize>(&mut self, rest: &mut &[u8]) -> Option<[u8; N]> {
        while let (true, Some((&byte, behind))) = (self.have < N, rest.split_first()) {
            if let Some(place) = self.number.get_mut(self.have) {
                *place = byte;
            }
            self.have += 1;
            *rest = behind;
        }
        if self.have < N {
            return None;
        }
        self.have = 0;
        self.number.first_chunk().copied()
    }
}

fn after(column: u16, bytes: u64, chosen: bool) -> Place {
    if bytes > 0 {
        Place::Value {
            column,
            bytes,
            chosen,
        }
    } else {
        Place::Length {
            column: column.saturating_add(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(indices: &[u16]) -> Arc<[KeptColumn]> {
        indices
            .iter()
            .map(|&index| KeptColumn {
                index,
                format: Format::Text,
            })
            .collect()
    }

    fn body(values: &[Option<&[u8]>]) -> Vec<u8> {
        let mut body = (values.len() as u16).to_be_bytes().to_vec();
        for value in values {
            body.extend(value.map_or(-1, |value| value.len() as i32).to_be_bytes());
            body.extend(value.unwrap_or_default());
        }
        body
    }

    fn kept(rows: &KeptRows, place: usize) -> Vec<Option<Vec<u8>>> {
        rows.values(place)
            .map(|value| value.map(<[u8]>::to_vec))
            .collect()
    }

    #[test]
    fn chosen_values_are_kept_however_the_row_is_cut() {
        let columns = wanted(&[1, 3]);
        let body = body(&[Some(b"no"), Some(b"one"), None, Some(b""), Some(b"later")]);
        let end = body.len() - 9;
        for cut in 0..body.len() {
            let mut row = Row::default();
            row.want(&columns);
            assert!(row.start());
            let (first, done) = row.feed(&body[..cut], 10);
            let second = if done {
                (0, true)
            } else {
                row.feed(&body[first..], 10)
            };
            assert_eq!((first + second.0, second.1), (end, true), "cut at {cut}");
            let mut rows = KeptRows::new(Arc::clone(&columns));
            assert!(rows.keep(&row, 1_000).is_some());
            assert_eq!(kept(&rows, 0), [Some(b"one".to_vec())]);
            assert_eq!(kept(&rows, 1), [Some(Vec::new())]);
            assert!(rows.is_complete());
        }
    }

    fn read(rows: &mut KeptRows, body: &[u8], cap: usize, room: usize) -> Option<usize> {
        let mut row = Row::default();
        row.want(rows.shared_columns());
        row.start();
        row.feed(body, cap);
        rows.keep(&row, room)
    }

    #[test]
    fn repeated_rows_are_kept_once_and_caps_are_told() {
        let mut rows = KeptRows::new(wanted(&[0]));
        for value in [Some(&b"7"[..]), Some(b"7"), None, None, Some(b"7")] {
            read(&mut rows, &body(&[value]), 10, 1_000);
        }
        assert_eq!(kept(&rows, 0), [Some(b"7".to_vec()), None, Some(b"7".to_vec())]);
        assert!(rows.is_complete());
        // Longer than the cap, and no row of that many columns.
        for body in [body(&[Some(b"0123456789a")]), body(&[])] {
            let mut rows = rows.clone();
            assert_eq!(read(&mut rows, &body, 10, 1_000), Some(0));
            assert!(!rows.is_complete());
            assert_eq!(kept(&rows, 0).len(), 3);
        }
        assert_eq!(read(&mut rows, &body(&[Some(b"8")]), 10, 1), None);
        assert!(!rows.is_complete());
    }

    #[test]
    fn a_gap_hides_the_values_that_it_falls_into() {
        let body = body(&[Some(b"0123"), Some(b"4567")]);
        let read = |columns: &[u16], from: usize, missing: usize| {
            let mut row = Row::default();
            row.want(&wanted(columns));
            row.start();
            row.feed(&body[..from], 10);
            row.bridge(missing as u64);
            row.feed(&body[from + missing..], 10);
            let mut rows = KeptRows::new(wanted(columns));
            rows.keep(&row, 1_000);
            (kept(&rows, 0), rows.is_complete())
        };
        assert_eq!(read(&[1], 7, 2), (vec![Some(b"4567".to_vec())], true));
        assert_eq!(read(&[1], 7, 3), (vec![Some(b"4567".to_vec())], true));
        assert_eq!(read(&[0], 7, 2), (vec![], false));
        assert_eq!(read(&[1], 7, 4), (vec![], false));
        assert_eq!(read(&[0], 1, 1), (vec![], false));
    }
}
