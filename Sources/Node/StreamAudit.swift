import Base
import EventLog
import Foundation
import Streams

/// Rebuilds what a stream emitted from the log alone, task by task, and compares.
struct StreamAudit {
    let log: any EventLog
    let service: StreamService
    /// Where the rebuilt state is kept, and folded on from where it is already; nil keeps it in memory.
    var directory: String?
    /// False where the state alone is wanted.
    var compares = true

    /// What one task's replay found.
    private struct Finding {
        var compared: Int64 = 0
        var folded: Int64 = 0
        var stores = 0
        var difference: String?
        var facts: [(String, JSON)] = []
    }

    func everything(to limit: FoldLimit, held: (Int, StateBucket?) throws -> HeldState?) throws -> AuditResult {
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
                "\(sum.compared) derived events and state digests and \(sum.stores) stores of the state in service were recomputed bit for bit"
                + since,
            facts: facts)
    }

    /// What was emitted by whom is no question where one topology emitted all.
    private var since: String {
        let generation = service.build().generation
        return generation > 1 ? "; what stands before it took over was emitted by the \(generation - 1) before it" : ""
    }

    private func replay(_ number: Int, to limit: FoldLimit, held: (Int, StateBucket?) throws -> HeldState?) throws
        -> Finding
    {
        let topology = service.topology
        // Outputs first: what is emitted from now on is no difference.
        var written: [String: Int64] = [:]
        for topic in topology.outputs + topology.side.all where log.partitions(of: topic) > number {
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
        let comparing = ComparingSink(log: log, ends: written, side: topology.side, partition: number) { _ in }
        let sink: any DerivedSink = compares ? comparing : DiscardingSink()
        let file = directory.map { StreamService.stateFile(topology.name, number, in: $0) }
        let runner = try TopologyRunner(
            topology: service.build(), task: service.task(number), derived: [], log: log,
            database: try StateDatabase(path: file), sink: sink, ends: ends)
        defer { runner.end() }
        try refuseAhead(runner, limit, file)
        try runner.end(at: limit)
        let before = runner.folded
        while try runner.runSlice() { if runner.needsCheckpoint { try runner.checkpoint() } }
        if directory != nil { try runner.checkpoint() }
        var found = Finding()
        found.compared = comparing.compared
        found.folded = runner.folded - before
        if let first = comparing.first {
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
        guard limit.isEnd, compares else { return found }
        guard !runner.isSilent else {
            found.difference = "the replay does not come to where the stream took over: \(runner.missing)"
            return found
        }
        for (topic, end) in written.sorted(by: { $0.key < $1.key }) where runner.emitted(topic) < end {
            let place = TopicPartition(topic, number)
            guard let more = try log.firstEvent(place, from: runner.emitted(topic), to: end) else { continue }
            found.difference = "the log holds \(place)@\(more), which the replay does not emit"
            return found
        }
        let ours = try HeldState(runner)
        guard let theirs = try held(number, nil), theirs.mark == ours.mark else { return found }
        found.stores = theirs.digests.count
        if let other = try ours.difference(from: theirs, runner, ask: { try held(number, $0) }) {
            (found.difference, found.facts) = (other.reason, other.facts)
        }
        return found
    }

    /// State that was folded further than somebody asks for cannot go back.
    private func refuseAhead(_ runner: TopologyRunner, _ limit: FoldLimit, _ file: String?) throws {
        guard let file, case .time(let time) = limit, runner.now > time else { return }
        throw NodeError(
            "state-ahead",
            "\(file) was folded up to \(runner.now) already; give another folder, or a time behind that")
    }
}

extension EventLog {
    /// The first event of a range, past the markers that may stand there; nil where there is none.
    func firstEvent(_ place: TopicPartition, from: Int64, to end: Int64) throws -> Int64? {
        var found: Int64?
        try forEachEvent(place, from: from, to: end) { event in
            found = event.offset
            return false
        }
        return found
    }
}
