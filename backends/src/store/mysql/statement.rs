//! Texts of statements over many rows.
//!
//! A statement is prepared once per connection and number of rows, so the numbers are few:
//! what may name a row twice (looking up, updating, deleting) is filled up to a power of two
//! with repeats; inserts take the exact number below 16 and multiples of 16 above.

use std::fmt::Write as _;

use mysql_async::Value;

use super::fault::Fault;
use super::session::Session;

/// Rows of one statement at most.
pub(super) const ROWS: usize = 256;
/// Bytes of values of one insert, unless one row alone has more. Servers take at least 1 MiB
/// of a packet by default, 16 to 64 MiB in the versions that are supported.
const BYTES: usize = 512 << 10;

/// `(?,?),(?,?)…`
pub(super) fn tuples(rows: usize, columns: usize) -> String {
    let tuple = format!("({})", marks(columns));
    repeated(&tuple, ",", rows)
}

/// `?,?,?…`
pub(super) fn marks(count: usize) -> String {
    repeated("?", ",", count)
}

/// `x'6162',x'63'…`: ids in a text. Bytes to the server, whatever they hold and whatever mode
/// it is in.
pub(super) fn literals<'a>(ids: impl IntoIterator<Item = &'a str>) -> String {
    let mut all = String::new();
    for id in ids {
        all.push_str(if all.is_empty() { "x'" } else { ",x'" });
        for byte in id.bytes() {
            write!(all, "{byte:02x}").expect("a String takes it");
        }
        all.push('\'');
    }
    all
}

pub(super) fn repeated(text: &str, separator: &str, count: usize) -> String {
    let mut all = String::with_capacity(count * (text.len() + separator.len()));
    for index in 0..count {
        if index > 0 {
            all.push_str(separator);
        }
        all.push_str(text);
    }
    all
}

/// The rows, the last one repeated up to a power of two.
pub(super) fn padded<T: Clone>(rows: &[T]) -> Vec<T> {
    let mut all = rows.to_vec();
    if let Some(last) = rows.last() {
        all.resize(rows.len().next_power_of_two(), last.clone());
    }
    all
}

/// How many of these rows, given by their bytes, go into the next insert.
fn insert_rows(bytes: &[usize]) -> usize {
    let mut used = 0;
    let fitting = bytes
        .iter()
        .take(ROWS)
        .take_while(|&&size| {
            used += size;
            used <= BYTES
        })
        .count();
    match fitting.max(1) {
        few @ ..16 => few,
        many => many / 16 * 16,
    }
}

/// Inserts rows behind `INSERT INTO … VALUES`; answers the ids they drew, where the table
/// gives ids.
pub(super) async fn insert(
    session: &mut Session,
    into: &str,
    rows: Vec<Vec<Value>>,
) -> Result<Vec<u64>, Fault> {
    let bytes: Vec<usize> = rows.iter().map(|row| row.iter().map(weight).sum()).collect();
    let mut ids = Vec::with_capacity(rows.len());
    let mut rows = rows.into_iter();
    let mut done = 0;
    while done < bytes.len() {
        let count = insert_rows(&bytes[done..]);
        let columns = rows.as_slice().first().map_or(0, Vec::len);
        let sql = format!("INSERT INTO {into} VALUES {}", tuples(count, columns));
        let params = rows.by_ref().take(count).flatten().collect();
        session.run(&sql, params).await?;
        ids.extend(session.inserted_ids(count));
        done += count;
    }
    Ok(ids)
}

fn weight(value: &Value) -> usize {
    match value {
        Value::Bytes(bytes) => bytes.len() + 9,
        _ => 8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inserts_have_few_sizes() {
        let mut sizes = std::collections::BTreeSet::new();
        for rows in 1..=1000 {
            let mut left = rows;
            let mut statements = 0;
            while left > 0 {
                let count = insert_rows(&vec![1; left]);
                sizes.insert(count);
                left -= count;
                statements += 1;
            }
            assert!(statements <= rows / ROWS + 2, "{statements} statements for {rows} rows");
        }
        assert_eq!(sizes.len(), 15 + 16);
    }

    #[test]
    fn an_insert_is_bounded_by_bytes_and_takes_a_large_row_alone() {
        assert_eq!(insert_rows(&[BYTES / 2, BYTES / 2, 1]), 2);
        assert_eq!(insert_rows(&[BYTES + 1, 1]), 1);
    }

    #[test]
    fn padding_repeats_the_last_row() {
        assert_eq!(padded(&[1, 2, 3]), [1, 2, 3, 3]);
        assert_eq!(padded(&[1, 2]), [1, 2]);
        assert_eq!(padded::<u8>(&[]), [0_u8; 0]);
    }

    #[test]
    fn texts_have_as_many_marks_as_there_are_values() {
        assert_eq!(tuples(2, 3), "(?,?,?),(?,?,?)");
        assert_eq!(marks(1), "?");
    }

    #[test]
    fn an_id_in_a_text_is_bytes_and_ends_nothing() {
        assert_eq!(literals(["ab", "'--é"]), "x'6162',x'272d2dc3a9'");
    }
}
