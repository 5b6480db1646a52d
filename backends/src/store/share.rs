//! How rooms share the bytes of one snapshot. Pure; every store trims alike.
//!
//! Each room first keeps its newest message, in order, while that fits the total. What is
//! left is shared evenly: a room that needs less than its share gives the rest to the
//! others (max-min fairness), so one busy room cannot empty the others.

/// What a room would like to send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Demand {
    /// Bytes of its newest message; 0 without messages.
    pub(crate) newest: usize,
    /// Bytes of all messages it would send, the newest included.
    pub(crate) all: usize,
}

/// Bytes each room may use; together at most `total`, none above its demand.
pub(crate) fn share(demands: &[Demand], total: usize) -> Vec<usize> {
    let mut left = total;
    let mut given = vec![0; demands.len()];
    let mut wanting = Vec::new();
    for (index, demand) in demands.iter().enumerate() {
        if demand.newest > left {
            continue;
        }
        given[index] = demand.newest;
        left -= demand.newest;
        if demand.all > demand.newest {
            wanting.push(index);
        }
    }
    // The smallest wish first: whoever wants less than an even share leaves the rest.
    let rest = |index: usize| demands[index].all - demands[index].newest;
    wanting.sort_by_key(|&index| rest(index));
    let mut rooms_left = wanting.len();
    for index in wanting {
        let more = rest(index).min(left / rooms_left);
        given[index] += more;
        left -= more;
        rooms_left -= 1;
    }
    given
}

/// How many of these messages, given newest first by their bytes, fit.
pub(crate) fn fitting(newest_first: &[usize], bytes: usize) -> usize {
    let mut used = 0_usize;
    newest_first
        .iter()
        .take_while(|&&size| {
            used = used.saturating_add(size);
            used <= bytes
        })
        .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn room(newest: usize, all: usize) -> Demand {
        Demand { newest, all }
    }

    #[test]
    fn everybody_gets_all_when_all_fits() {
        assert_eq!(share(&[room(1, 10), room(2, 20), room(0, 0)], 30), [10, 20, 0]);
    }

    #[test]
    fn a_busy_room_does_not_empty_a_quiet_one() {
        assert_eq!(share(&[room(1, 1000), room(1, 20)], 100), [80, 20]);
    }

    #[test]
    fn what_a_room_leaves_goes_to_the_others_evenly() {
        assert_eq!(share(&[room(0, 1000), room(0, 10), room(0, 1000)], 100), [45, 10, 45]);
    }

    #[test]
    fn each_room_keeps_its_newest_message_before_any_keeps_a_second() {
        assert_eq!(share(&[room(40, 80), room(60, 60)], 100), [40, 60]);
    }

    #[test]
    fn a_newest_message_that_does_not_fit_the_rest_is_left_out() {
        assert_eq!(share(&[room(60, 60), room(60, 60), room(40, 40)], 100), [60, 0, 40]);
    }

    #[test]
    fn fitting_counts_from_the_newest_and_stops_at_the_first_that_does_not_fit() {
        assert_eq!(fitting(&[10, 10, 10], 29), 2);
        assert_eq!(fitting(&[10, 10, 10], 30), 3);
        assert_eq!(fitting(&[10, 30, 1], 20), 1);
        assert_eq!(fitting(&[0, 0], 0), 2);
    }
}
