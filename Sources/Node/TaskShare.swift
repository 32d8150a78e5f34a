import Base
import Dispatch
import EventLog
import Foundation
import KafkaLog
import Streams

/// A node's share of the streams' tasks, where several nodes fold one log: a consumer group says whose each task is. The
/// others' state is kept here too, a step behind, so that a task that comes goes on where it was left.
final class TaskShare: Sendable {
    /// Tasks are named like partitions: the stream, and the task's number.
    private struct State {
        var owned: Set<TopicPartition> = []
        /// Said in the log to be here.
        var announced: Set<TopicPartition> = []
        var copies: [TopicPartition: Standby] = [:]
        /// The one that is being brought on just now.
        var copying: TopicPartition?
        /// When a fold was first seen to be fenced off, in seconds of uptime.
        var fenced: [TopicPartition: Double] = [:]
        var directory: [TopicPartition: String] = [:]
        var trouble: String?
        var failure: String?
        var closing = false
    }

    /// A copy of another node's state. Sendable because the one thread that `copying` names touches it;
    /// the name is behind the lock of `state`.
    private final class Standby: @unchecked Sendable {
        let copy: StateCopy
        init(_ copy: StateCopy) { self.copy = copy }
    }

    /// How often the upkeep looks round, and how long it waits after trouble, in seconds.
    private static let interval = 0.05
    private static let pause = 0.5
    /// How long a fold that another node fenced off stays away although the group says that it belongs here, in seconds.
    private static let patience = 10.0
    /// Pages of a changelog that a copy is brought on by at a time.
    private static let pages = 4

    private let log: KafkaLog
    private let streams: [StreamService]
    private let directory: String
    private let address: String
    private let keepsCopies: Bool
    private let isInForce: @Sendable (StreamService) throws -> Bool
    private let state = Monitor(State())
    private let group = Monitor<TaskGroup?>(nil)
    private let thread = Monitor<BlockingThread?>(nil)

    /// - Parameters:
    ///   - address: where other nodes reach this one.
    ///   - keepsCopies: false spares the disk and the traffic; a task that comes is then read from its changelog first.
    ///   - isInForce: whether a stream is still the one that the log says is in force.
    init(
        log: KafkaLog, streams: [StreamService], directory: String, address: String, keepsCopies: Bool,
        isInForce: @escaping @Sendable (StreamService) throws -> Bool
    ) {
        self.isInForce = isInForce
        self.log = log
        self.streams = streams
        self.directory = directory
        self.address = address
        self.keepsCopies = keepsCopies
    }

    func start() throws {
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        let made = try TaskGroup(
            log.configuration, name: "tasks", member: address.replacing("http://", with: ""),
            topics: streams.map(\.topology.side.progress)
        ) { [weak self] change in self?.take(change) }
        group.withLock { $0 = made }
        thread.withLock {
            $0 = BlockingThread(name: "shares") { [weak self] in
                while let self, !self.state.withLock({ $0.closing }) { self.look() }
            }
        }
    }

    /// Gives every task up in order, so that the others have them at once.
    func stop() {
        state.update { $0.closing = true }
        thread.withLock {
            $0?.join()
            $0 = nil
        }
        group.withLock { $0 }?.close()
        for stream in streams { stream.stop() }
        state.withLock { $0.copies = [:] }
    }

    var failure: String? {
        group.withLock { $0 }?.failure.map { "sharing the streams' tasks out stopped: \($0)" }
            ?? state.withLock { $0.failure }
    }
    /// What went wrong last and was tried again.
    var trouble: String? { state.withLock { $0.trouble } }
    var hasJoined: Bool { (group.withLock { $0 }?.rebalances ?? 0) > 0 }
    /// Times that tasks came or went.
    var rebalances: Int { group.withLock { $0 }?.rebalances ?? 0 }
    /// Who has which task, as far as anybody said; here are those that run here.
    var addresses: [TopicPartition: String] { state.withLock { $0.directory } }

    // MARK: Coming and going

    private func service(_ name: String) -> StreamService? { streams.first { $0.topology.name == name } }

    /// The tasks that partitions of progress topics stand for, by stream.
    private func tasks(_ partitions: [TopicPartition]) -> [(service: StreamService, numbers: [Int])] {
        streams.compactMap { service in
            let numbers = partitions.filter { $0.topic == service.topology.side.progress }.map(\.partition)
                .filter { $0 < service.tasks }
            return numbers.isEmpty ? nil : (service, numbers.sorted())
        }
    }

    /// Held while tasks begin or end: the group's thread and the upkeep do both.
    private let moving = Monitor(())

    private func take(_ change: TaskGroup.Change) { moving.withLock { _ in handle(change) } }

    private func handle(_ change: TaskGroup.Change) {
        switch change {
        case .gained(let partitions):
            for (service, numbers) in tasks(partitions) {
                for number in numbers { begin(service, number) }
            }
        case .revoked(let partitions), .taken(let partitions):
            for (service, numbers) in tasks(partitions) {
                // Not before the last checkpoint is made does a copy begin with the same file.
                service.stop(tasks: numbers)
                let names = numbers.map { TopicPartition(service.topology.name, $0) }
                state.update { state in
                    state.owned.subtract(names)
                    state.announced.subtract(names)
                    for name in names { state.fenced[name] = nil }
                }
            }
        }
    }

    private func begin(_ service: StreamService, _ number: Int) {
        let name = TopicPartition(service.topology.name, number)
        // The copy ends before the fold begins with what it holds.
        _ = state.wait { state -> Bool? in
            guard state.copying != name else { return nil }
            state.copies[name] = nil
            state.owned.insert(name)
            return true
        }
        do {
            // Another one may have taken over while this node did not look.
            guard try isInForce(service) else {
                throw NodeError(
                    "not-in-force",
                    "another '\(service.topology.name)' has taken over: start this node with its program",
                    fault: .world)
            }
            try service.start(task: number, log: log, directory: directory)
        } catch {
            state.update { $0.failure = "the task \(name) cannot begin: \(error)" }
        }
    }

    // MARK: Upkeep

    private func look() {
        do {
            try announce()
            resumeFenced()
            let more = keepsCopies ? try bringCopiesOn() : false
            if !more { _ = state.wait(seconds: Self.interval) { $0.closing ? true : nil } }
        } catch {
            state.update { $0.trouble = "\(error)" }
            _ = state.wait(seconds: Self.pause) { $0.closing ? true : nil }
        }
    }

    /// Says which tasks came here once they answer, and learns which are where else.
    private func announce() throws {
        let (owned, announced) = state.withLock { ($0.owned, $0.announced) }
        let fresh = owned.subtracting(announced).sorted().filter { name in
            service(name.topic)?.fold(name.partition)?.status.loaded == true
        }
        if !fresh.isEmpty {
            let now = Instant.wallClock()
            _ = try log.append(
                LogAppend(
                    principal: "node",
                    events: fresh.map { (TaskDirectory.topic.topic, 0, TaskDirectory.taken($0, by: address, at: now)) })
            )
            state.withLock { $0.announced.formUnion(fresh.filter($0.owned.contains)) }
        }
        let known = directoryReader.withLock { $0 }
        var reader = known
        try reader.catchUp(log)
        directoryReader.withLock { $0 = reader }
        let addresses = reader.addresses
        state.withLock { $0.directory = addresses }
    }

    private let directoryReader = Monitor(TaskDirectory())

    /// A fold that was fenced off belongs to another node, which the group will say. Where it goes on saying that it is ours,
    /// the other one is gone again.
    private func resumeFenced() {
        let now = Double(DispatchTime.now().uptimeNanoseconds) / 1e9
        for name in state.withLock({ $0.owned.sorted() }) {
            guard let service = service(name.topic), service.fold(name.partition)?.status.isFenced == true else {
                continue
            }
            let since = state.withLock { state in
                let since = state.fenced[name] ?? now
                state.fenced[name] = since
                return since
            }
            guard now - since > Self.patience else { continue }
            moving.withLock { _ in
                let isOurs = state.withLock { state in
                    state.fenced[name] = nil
                    state.announced.remove(name)
                    return state.owned.contains(name) && !state.closing
                }
                guard isOurs else { return }
                service.stop(tasks: [name.partition])
                begin(service, name.partition)
            }
        }
    }

    /// - Returns: whether there is more to copy.
    private func bringCopiesOn() throws -> Bool {
        var more = false
        for service in streams {
            for number in 0..<service.tasks {
                let name = TopicPartition(service.topology.name, number)
                let isFree = state.withLock { state in
                    guard !state.owned.contains(name), !state.closing else { return false }
                    state.copying = name
                    return true
                }
                guard isFree else { continue }
                defer { state.update { $0.copying = nil } }
                let standby = try state.withLock({ $0.copies[name] }) ?? open(service, number)
                for _ in 0..<Self.pages { if try !standby.copy.advance() { break } else { more = true } }
                state.withLock { $0.copies[name] = standby }
            }
        }
        return more
    }

    private func open(_ service: StreamService, _ number: Int) throws -> Standby {
        let file = StreamService.stateFile(service.topology.name, number, in: directory)
        try StreamService.dropStale(file)
        return Standby(
            try StateCopy(
                log: log, place: TopicPartition(service.topology.side.state, number),
                database: try StateDatabase(path: file), identity: service.build().identity))
    }
}
