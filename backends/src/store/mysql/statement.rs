//! Texts of statements over many rows.
//!
//! A statement is prepared once per connection and number of rows, so the numbers are few:
//! what may name a row twice (looking up, updating, deleting) is filled up to a power of two
//! with repeats.
//!
//! A commit is not prepared: a prepared statement is a round trip of its own, and several
//! texts are one. Numbers and hexadecimal strings are all that is put into them.

/// Rows of one statement at most.
pub(super) const ROWS: usize = 256;
/// Bytes of the texts of one round trip, unless one row alone has more. Servers take at least
/// 1 MiB of a packet, 16 to 64 MiB by default in the versions that are supported.
const TEXT_BYTES: usize = 768 << 10;

/// `(?,?),(?,?)…`
pub(super) fn tuples(rows: usize, columns: usize) -> String {
    let tuple = format!("({})", marks(columns));
    repeated(&tuple, ",", rows)
}

/// `?,?,?…`
pub(super) fn marks(count: usize) -> String {
    repeated("?", ",", count)
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

/// A value in a text.
#[derive(Clone, Copy)]
pub(super) enum Literal<'a> {
    /// Text or bytes.
    Bytes(&'a [u8]),
    Number(i64),
}

impl<'a> Literal<'a> {
    pub(super) fn text(text: &'a str) -> Self {
        Self::Bytes(text.as_bytes())
    }

    /// Bytes it takes, about.
    fn len(&self) -> usize {
        match self {
            Self::Bytes(bytes) => 2 * bytes.len() + 4,
            Self::Number(_) => 20,
        }
    }
}

/// `INSERT`s of rows that come one by one.
pub(super) struct Inserts {
    /// Table and columns.
    into: &'static str,
    texts: Vec<Insert>,
}

/// An `INSERT` of so many rows.
pub(super) struct Insert {
    pub(super) sql: String,
    pub(super) rows: usize,
}

impl Inserts {
    pub(super) fn new(into: &'static str) -> Self {
        Self { into, texts: Vec::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.texts.is_empty()
    }

    pub(super) fn push(&mut self, row: &[Literal<'_>]) {
        let Self { into, texts } = self;
        let bytes: usize = row.iter().map(Literal::len).sum();
        if texts.last().is_none_or(|last| last.sql.len() + bytes > TEXT_BYTES / 2) {
            texts.push(Insert { sql: format!("INSERT INTO {into} VALUES "), rows: 0 });
        }
        let Insert { sql, rows } = texts.last_mut().expect("one was begun above");
        sql.push_str(if *rows == 0 { "(" } else { ",(" });
        for (index, value) in row.iter().enumerate() {
            if index > 0 {
                sql.push(',');
            }
            match value {
                Literal::Bytes(bytes) => push_bytes(sql, bytes),
                Literal::Number(number) => *sql += &number.to_string(),
            }
        }
        sql.push(')');
        *rows += 1;
    }

    pub(super) fn finish(self) -> Vec<Insert> {
        self.texts
    }
}

/// `x'6162',x'63'…`
pub(super) fn literals<'a>(ids: impl IntoIterator<Item = &'a str>) -> String {
    let mut all = String::new();
    for id in ids {
        if !all.is_empty() {
            all.push(',');
        }
        push_bytes(&mut all, id.as_bytes());
    }
    all
}

/// Hexadecimal: bytes to the server, whatever they hold and whatever mode it is in.
fn push_bytes(sql: &mut String, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    sql.reserve(2 * bytes.len() + 3);
    sql.push_str("x'");
    for byte in bytes {
        sql.push(char::from(DIGITS[usize::from(byte >> 4)]));
        sql.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    sql.push('\'');
}

/// How many of these texts go together: one at least, however long it is.
pub(super) fn fitting(texts: &[String]) -> usize {
    let mut bytes = 0;
    let fits = |text: &&String| {
        bytes += text.len();
        bytes <= TEXT_BYTES
    };
    texts.iter().take_while(fits).count().max(1).min(texts.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_written_behind_each_other() {
        let mut inserts = Inserts::new("t (a, b)");
        assert!(inserts.is_empty());
        inserts.push(&[Literal::Bytes(b"ab"), Literal::Number(-1)]);
        inserts.push(&[Literal::Bytes(b""), Literal::Number(2)]);
        let [Insert { sql, rows: 2 }] = &inserts.finish()[..] else { panic!("one text of two rows") };
        assert_eq!(sql, "INSERT INTO t (a, b) VALUES (x'6162',-1),(x'',2)");
    }

    #[test]
    fn texts_are_bounded_and_a_large_row_goes_alone() {
        let mut inserts = Inserts::new("t (a)");
        for _ in 0..100 {
            inserts.push(&[Literal::Bytes(&[0; 10_000])]);
        }
        inserts.push(&[Literal::Bytes(&[0; TEXT_BYTES])]);
        inserts.push(&[Literal::Bytes(b"x")]);
        let texts = inserts.finish();
        assert_eq!(texts.iter().map(|text| text.rows).sum::<usize>(), 102);
        let texts: Vec<String> = texts.into_iter().map(|text| text.sql).collect();
        let mut rest = &texts[..];
        while !rest.is_empty() {
            let (some, others) = rest.split_at(fitting(rest));
            let bytes: usize = some.iter().map(String::len).sum();
            assert!(bytes <= TEXT_BYTES || some.len() == 1, "{bytes}");
            rest = others;
        }
        assert_eq!(fitting(&[]), 0);
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
