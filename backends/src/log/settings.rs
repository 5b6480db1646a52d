//! What a log on a server is called, how it is cut, and how safe it is there; the embedded log
//! has none of it.

/// Names and sizes of a Kafka log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Topic of the records, 1–249 of `a-z A-Z 0-9 . _ -`. Default `my-topic`.
    pub topic: String,
    /// Consumer group, 1–249 bytes. Default `job-service-group`.
    pub group: String,
    /// Partitions of a topic that has to be made, 4–1,000, default 8: as many consumers can
    /// share the work. A topic that is there already is taken as it is.
    pub partitions: u32,
    /// Milliseconds that a record waits for others of its partition, 0–1,000, default 25. A
    /// broker is asked once for each partition and batch: with few messages a second a longer
    /// wait costs it and everybody behind it less, and deliveries by the log path alone time.
    pub linger_ms: u32,
    /// Topic of the records that nobody can read. Default: the topic's name and
    /// `.dead-letter`.
    pub dead_letter_topic: Option<String>,
}

/// What a look at a log on a server found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Brokers that answer.
    pub brokers: usize,
    /// Partitions of the topic; 0: there is no such topic yet.
    pub partitions: usize,
    /// Copies of the partition that has the fewest.
    pub copies: usize,
    /// `min.insync.replicas` of the topic: copies that have a record when its append is
    /// answered, as far as the broker tells.
    pub in_sync_least: Option<u32>,
    /// What the producing side asks for, in words.
    pub producer: &'static str,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            topic: "my-topic".to_owned(),
            group: "job-service-group".to_owned(),
            partitions: 8,
            linger_ms: 25,
            dead_letter_topic: None,
        }
    }
}

/// Longest name of a topic or group.
const NAME_BYTES: usize = 249;

impl Settings {
    /// Where records go that nobody can read.
    pub fn dead_letters(&self) -> String {
        self.dead_letter_topic.clone().unwrap_or_else(|| format!("{}.dead-letter", self.topic))
    }

    /// Checks every value.
    ///
    /// # Errors
    /// Names the key, the value and the allowed range.
    pub fn validate(&self) -> Result<(), String> {
        topic("log.topic", &self.topic)?;
        topic("log.dead_letter_topic", &self.dead_letters())?;
        if self.dead_letters() == self.topic {
            return Err(format!("log.dead_letter_topic = {:?}: must not be log.topic", self.topic));
        }
        if !(1..=NAME_BYTES).contains(&self.group.len()) || self.group.contains('\0') {
            return Err(format!("log.group = {:?}: must have 1 to {NAME_BYTES} bytes", self.group));
        }
        if !(4..=1_000).contains(&self.partitions) {
            return Err(format!("log.partitions = {}: must be 4 to 1000", self.partitions));
        }
        if self.linger_ms > 1_000 {
            return Err(format!("log.linger_ms = {}: must be 0 to 1000", self.linger_ms));
        }
        Ok(())
    }
}

fn topic(key: &str, name: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let fits = (1..=NAME_BYTES).contains(&name.len()) && name.bytes().all(allowed);
    match fits && !matches!(name, "." | "..") {
        true => Ok(()),
        false => {
            Err(format!("{key} = {name:?}: must have 1 to {NAME_BYTES} of a-z, A-Z, 0-9, '.', '_' and '-'"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_valid_and_its_dead_letters_lie_beside_it() {
        let settings = Settings::default();
        assert_eq!(settings.validate(), Ok(()));
        assert_eq!(settings.dead_letters(), "my-topic.dead-letter");
    }

    #[test]
    fn a_bad_value_is_named_with_its_key() {
        let with = |change: fn(&mut Settings)| {
            let mut settings = Settings::default();
            change(&mut settings);
            settings.validate().err().unwrap_or_default()
        };
        assert!(with(|s| s.topic = "a b".into()).starts_with("log.topic = \"a b\""));
        assert!(with(|s| s.topic = "..".into()).starts_with("log.topic"));
        assert!(with(|s| s.topic = "x".repeat(249)).starts_with("log.dead_letter_topic"));
        assert!(with(|s| s.dead_letter_topic = Some("my-topic".into())).contains("must not be log.topic"));
        assert!(with(|s| s.group.clear()).starts_with("log.group"));
        assert!(with(|s| s.partitions = 3).contains("log.partitions = 3"));
        assert_eq!(with(|s| s.partitions = 4), "");
        assert!(with(|s| s.linger_ms = 1_001).contains("log.linger_ms = 1001"));
        assert_eq!(with(|s| s.linger_ms = 0), "");
    }
}
