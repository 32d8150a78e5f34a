import Base
import EventLog
import Foundation
import HTTP
import Streams

/// What streams' tables hold, on whatever node the task is that holds it.
extension Node {
    /// How long a question waits for a task that is just moving from one node to another, and how long for one answer of
    /// another node, in seconds.
    private static let movePatience = 15.0
    private static let answerPatience = 5.0
    private static let movePause = 0.05

    struct Answer: Sendable {
        let value: JSON
        let time: Instant
        /// The task's stream time.
        let now: Instant

        func json(_ stream: String, _ view: String, _ key: String, asOf: Instant) -> JSON {
            .object([
                "stream": .string(stream), "view": .string(view), "key": .string(key), "value": value,
                "time": .string(time.description), "asOf": Node.moment(asOf),
            ])
        }
    }

    /// What a stream's served table holds for a key.
    /// - Parameters:
    ///   - text: a time or a position of the past, for which the stream is folded again from the log; nil for now.
    ///   - task: nobody but this task is asked, and only here; another node asks like this.
    package func view(
        stream name: String, view: String, key: String, asOf text: String?, task: Int? = nil
    ) async throws -> JSON {
        let service = try streamService(name)
        guard service.topology.views.contains(view) else {
            let known = service.topology.views.joined(separator: ", ")
            throw NodeError(
                "unknown-view",
                "the stream '\(name)' serves no table '\(view)'; it serves \(known.isEmpty ? "none" : known)")
        }
        let limit = try Node.limit(text)
        // A key may stand in another partition than its own hash says: then its task is found by asking.
        let first = service.tasks == 1 ? 0 : murmur2Partition([UInt8](key.utf8), partitions: service.tasks)
        var numbers = [first] + (0..<service.tasks).filter { $0 != first }
        if case .position(let position) = limit, service.tasks > 1, service.topology.isByPartition {
            numbers = [position.partition]
        }
        if let task { numbers = [task] }
        numbers = numbers.filter { (0..<service.tasks).contains($0) }
        if !limit.isEnd || !isStarted {
            let order = numbers
            return try await pastWork.run { [self] in
                for number in order {
                    let runner = try past(service, number, limit)
                    guard let found = try Node.read(runner, view, key) else { continue }
                    var moment = runner.now
                    if case .time(let time) = limit { moment = time }
                    return found.json(name, view, key, asOf: moment)
                }
                throw Node.unknownKey(name, view, key, text)
            }
        }
        let deadline = Date(timeIntervalSinceNow: task == nil ? Self.movePatience : 0)
        for number in numbers {
            let answer = try await patiently(until: deadline) { [self] in
                if let fold = service.fold(number) {
                    let found = try await fold.ask { runner in
                        // It begins at its last checkpoint: what was told before must not be untold.
                        guard runner.hasCaughtUp else { throw Node.catchingUp(name, runner) }
                        return try Node.read(runner, view, key)
                    }
                    return found.map { $0.json(name, view, key, asOf: $0.now) }
                }
                guard task == nil, let share else {
                    throw NodeError(
                        "not-here", "the task \(number) of the stream '\(name)' is not on this node", fault: .world,
                        retriable: true)
                }
                return try await ask(share, TopicPartition(name, number), view, key)
            }
            if let answer { return answer }
        }
        throw Node.unknownKey(name, view, key, text)
    }

    private static let catchingUp = "catching-up"

    private static func catchingUp(_ name: String, _ runner: TopologyRunner) -> NodeError {
        NodeError(
            catchingUp,
            "the stream '\(name)' still folds what the log held when it began, and is at \(runner.now); ask again in a moment, or as of a time",
            fault: .world, retriable: true)
    }

    static func unknownKey(_ name: String, _ view: String, _ key: String, _ text: String?) -> NodeError {
        NodeError(
            "unknown-key",
            "'\(view)' of the stream '\(name)' holds nothing for '\(key)' \(text.map { "as of \($0)" } ?? "now")")
    }

    static func read(_ runner: TopologyRunner, _ view: String, _ key: String) throws -> Answer? {
        guard let found = try runner.topology.stages.lazy.compactMap({ try $0.read(view: view, key: key) }).first else {
            return nil
        }
        return Answer(value: found.value, time: found.time, now: runner.now)
    }

    /// Asks again while a task is on its way from one node to another. Where nothing is shared nothing is on its way.
    private func patiently(until deadline: Date, _ body: () async throws -> JSON?) async throws -> JSON? {
        while true {
            do {
                return try await body()
            } catch let error as any DescribedError {
                let isMoving = error.retriable || error.code == "fold-stopped"
                guard share != nil || error.code == Self.catchingUp, isMoving, Date() < deadline else { throw error }
                try await Task.sleep(for: .seconds(Self.movePause))
            }
        }
    }

    /// Asks the node that has the task.
    private func ask(_ share: TaskShare, _ task: TopicPartition, _ view: String, _ key: String) async throws -> JSON? {
        guard let address = share.addresses[task] else {
            throw NodeError(
                "not-here", "no node has the task \(task.partition) of the stream '\(task.topic)' just now; try again",
                fault: .world, retriable: true)
        }
        let path = [task.topic, view, key].map(Self.escape).joined(separator: "/")
        let answer = try await HTTPClient.send(
            "GET", "\(address)/v1/streams/\(path)?task=\(task.partition)", within: Self.answerPatience)
        guard let json = try? JSON(parsing: answer.body) else {
            throw NodeError(
                "bad-answer", "the node at \(address) answered \(answer.status) without JSON", fault: .world,
                retriable: true)
        }
        if answer.status == 200 { return json }
        let code = json["error"]?["code"]?.string ?? "refused"
        if code == "unknown-key" { return nil }
        throw NodeError(
            code, "the node at \(address): \(json["error"]?["message"]?.string ?? "status \(answer.status)")",
            fault: .world, retriable: answer.status >= 429)
    }

    private static func escape(_ text: String) -> String {
        text.addingPercentEncoding(withAllowedCharacters: .alphanumerics) ?? text
    }

    /// A task as it was, folded again in shadow state.
    private func past(_ service: StreamService, _ number: Int, _ limit: FoldLimit) throws -> TopologyRunner {
        var ends: [TopicPartition: Int64] = [:]
        for topic in service.topology.inputs {
            for partition in 0..<log.partitions(of: topic) {
                let place = TopicPartition(topic, partition)
                ends[place] = try log.offsets(place).upperBound
            }
        }
        let runner = try TopologyRunner(
            topology: service.build(), task: service.task(number), derived: [], log: log,
            database: try StateDatabase(path: nil), sink: DiscardingSink(), ends: ends)
        runner.recordsDigests = false
        try runner.end(at: limit)
        while try runner.runSlice() {}
        return runner
    }
}
