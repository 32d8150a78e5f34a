import Base
import EventLog
import Foundation
import Streams

/// Rebuilds what a stream emitted from the log alone, task by task, and compares.
struct StreamAudit {
    let log: any EventLog
    let service: StreamService

    /// What one task's replay found.
    private struct Finding {
        var compared: Int64 = 0
        var folded: Int64 = 0
        var stores = 0
        var difference: String?
        var facts: [(String, JSON)] = []
    }

    func everything(to limit: FoldLimit, held: (Int) throws -> Audit.HeldState?) throws -> AuditResult {
        let subject = "stream \(service.topology.name)" + (limit.isEnd ? "" : " to \(limit)")
        let begun = Date()
        var sum = Finding()
        var numbers = Array(0..<service.tasks)
        if case .position(let position) = limit, numbers.count > 1, service.topology.isByPartition {
            numbers = numbers.filter { $0 == position.partition }
        }
        for number in numbers {
            let found = try replay(number, to: limit, held: held)
            sum.compared += found.compared
            sum.folded += found.folded
            sum.stores += found.stores
            if sum.difference == nil, let difference = found.difference {
                sum.difference = difference
                sum.facts = found.facts
            }
        }
        let facts: [(String, JSON)] =
            [
                ("eventsFolded", .int(sum.folded)), ("eventsCompared", .int(sum.compared)),
                ("storesCompared", .int(Int64(sum.stores))), ("tasks", .int(Int64(service.tasks))),
                ("seconds", .double(Date().timeIntervalSince(begun))),
            ] + sum.facts
        if let difference = sum.difference {
            return AuditResult(verdict: .diverged, subject: subject, reason: difference, facts: facts)
        }
        guard sum.compared + Int64(sum.stores) > 0 || sum.folded == 0 else {
            return AuditResult(
                verdict: .unreplayable, subject: subject,
                reason: "\(sum.folded) events were folded, but the log holds nothing that they could be compared with",
                facts: facts)
        }
        return AuditResult(
            verdict: .exact, subject: subject,
            reason:
                "\(sum.compared) derived events and state digests and \(sum.stores) stores of the state in service were recomputed bit for bit",
            facts: facts)
    }

    private func replay(_ number: Int, to limit: FoldLimit, held: (Int) throws -> Audit.HeldState?) throws -> Finding {
        let topology = service.topology
        // Outputs first: what is emitted from now on is no difference.
        var written: [String: Int64] = [:]
        for topic in topology.outputs + topology.side.all {
            written[topic] = try log.offsets(TopicPartition(topic, number)).upperBound
        }
        // What the log holds now: a replay never waits for more.
        var ends: [TopicPartition: Int64] = [:]
        for topic in topology.inputs {
            for partition in 0..<log.partitions(of: topic) {
                let place = TopicPartition(topic, partition)
                ends[place] = try log.offsets(place).upperBound
            }
        }
        var emitted: [String: Int64] = [:]
        let sink = ComparingSink(log: log, ends: written, side: topology.side, partition: number) { event in
            emitted[event.topic] = event.offset + 1
        }
        let runner = try TopologyRunner(
            topology: service.build(), task: service.task(number), derived: [], log: log,
            database: try StateDatabase(path: nil), sink: sink, ends: ends)
        try runner.end(at: limit)
        while try runner.runSlice() {}
        var found = Finding()
        found.compared = sink.compared
        found.folded = runner.folded
        if let first = sink.first {
            found.difference = "\(first.position) differs: \(first.reason)"
            found.facts = [
                (
                    "firstDifference",
                    .object([
                        "position": .string(first.position), "time": .string(first.time.description),
                        "id": .string(first.id), "reason": .string(first.reason),
                    ])
                )
            ]
            return found
        }
        guard limit.isEnd else { return found }
        for (topic, end) in written.sorted(by: { $0.key < $1.key }) where emitted[topic, default: 0] < end {
            let place = TopicPartition(topic, number)
            guard let more = try firstEvent(place, from: emitted[topic, default: 0], to: end) else { continue }
            found.difference = "the log holds \(place)@\(more), which the replay does not emit"
            return found
        }
        let ours = try Audit.HeldState(runner)
        guard let theirs = try held(number), theirs.mark == ours.mark else { return found }
        found.stores = theirs.digests.count
        if let other = zip(ours.digests, theirs.digests).first(where: { $0 != $1 }) {
            found.difference = "the state of '\(other.0.name)' in service is not what the log gives"
        }
        return found
    }

    private func firstEvent(_ place: TopicPartition, from: Int64, to end: Int64) throws -> Int64? {
        var found: Int64?
        try log.forEachEvent(place, from: from, to: end) { event in
            found = event.offset
            return false
        }
        return found
    }
}
