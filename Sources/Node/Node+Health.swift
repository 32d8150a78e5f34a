import Base
import EventLog
import KafkaLog

/// What is wrong with a node, and what people should know although nothing is.
extension Node {
    /// What people should know although nothing is wrong.
    package var notices: [String] {
        let (notices, troubles) = running.withLock { ($0.notices, $0.troubles) }
        var list = notices
        for (part, reason) in troubles.sorted(by: { $0.key < $1.key }) {
            list.append("\(part) had to begin again at least once, last for: \(reason)")
        }
        for (name, status) in connectors {
            if let trouble = status.trouble { list.append("the connector \(name) went on after: \(trouble)") }
        }
        if let embedded {
            let log = embedded.statistics
            list += log.lostIdentifiers.map(\.description)
            if let mark = embedded.recovery.mark { list.append(mark.text) }
            let places = log.damaged.map(\.description) + log.rotten
            if let first = places.first {
                list.append(
                    "the log is damaged in \(places.count) place\(places.count == 1 ? "" : "s"), for one \(first); headrace log verify names them all"
                )
            }
        }
        if let outage = kafka?.outage { list.append(outage.message) }
        if let trouble = share?.trouble { list.append("sharing the streams' tasks out went on after: \(trouble)") }
        let unfolded = fold.status.failures
        if unfolded > 0 { list.append("\(unfolded) events could not be folded; headrace dlq list says which and why") }
        for view in viewFolds where view.host.status.failures > 0 {
            list.append(
                "\(view.host.status.failures) events could not be read by the view '\(view.name)'; `views` of headrace status --json has the first"
            )
        }
        list += inconsistencies
        let damaged = keys.counts.damaged
        if damaged > 0 {
            list.append("\(damaged) keys of personal fields cannot be read any more; put the key store's backup back")
        }
        return list + (kafka?.drift.map { "\($0); change one of them" } ?? [])
    }

    /// What went wrong since the start, for the status and the exit code.
    package var failures: [String] {
        var list = running.withLock { $0.failures }
        if let failure = fold.status.failure { list.append("the fold stopped: \(failure)") }
        for connector in running.withLock({ $0.connectors }) {
            if let trace = connector.status.trace {
                list.append("the connector \(connector.configuration.name) stopped: \(trace)")
            }
        }
        list += streams.flatMap(\.failures)
        list += viewFolds.compactMap { fold in
            fold.host.status.failure.map { "the view '\(fold.name)' stopped: \($0)" }
        }
        if let failure = share?.failure { list.append(failure) }
        if let stopped = log.stopped { list.append("\(stopped)") }
        if let failure = keys.failure { list.append("\(failure)") }
        return list
    }
}
