//! TCP bytes (CPU for 10^9 of them) and connections (CPU for each).

use super::{contenders, interleave};
use crate::{
    contender::Way,
    load::own,
    measure,
    order::Order,
    results::{Column, Results},
    stage::Stage,
};

/// Bytes up and down.
pub(super) fn bytes(order: &Order, stage: &Stage, results: &mut Results, (name, way): (&str, Way)) {
    let contenders = contenders(order, stage, way);
    interleave(order.rounds, name, contenders, results, &|contender| {
        let before = measure::cpu(&contender.pids)?;
        let bulk = own::bulk(contender, order.seconds)?;
        let used = measure::cpu(&contender.pids)?.since(before).total();
        let mut figures = vec![(Column::GbitS, bulk.gigabits)];
        if !contender.pids.is_empty() {
            figures.push((Column::CpuSPerGb, used / bulk.gigabytes));
            figures.push((Column::RssKb, measure::memory_of(&contender.pids)?));
        }
        Ok(figures)
    });
}

/// New connections, redirected, one byte there and back on each; also through the mTLS pair.
pub(super) fn connections(order: &Order, stage: &Stage, results: &mut Results) {
    for (name, way) in [
        ("connections", Way::Tcp),
        ("connections_mtls", Way::TcpMtls),
    ] {
        let contenders = contenders(order, stage, way);
        interleave(order.rounds, name, contenders, results, &|contender| {
            let before = measure::cpu(&contender.pids)?;
            let (count, rate, failed) = own::connect(contender, order.seconds)?;
            anyhow::ensure!(count > 0.0, "no connection was answered, {failed} failed");
            let used = measure::cpu(&contender.pids)?.since(before).total();
            let mut figures = vec![(Column::ConnectionsS, rate), (Column::Failed, failed)];
            if !contender.pids.is_empty() {
                figures.push((Column::CpuUsPerConnection, used * 1e6 / count.max(1.0)));
            }
            Ok(figures)
        });
    }
}
