import Base
import Catalog
import EventLog
import Foundation
import Streams

/// A topology of typed streams as it runs: a fold for each of its tasks, or for those that this node has.
package struct StreamService: Sendable {
    package let topology: StreamTopology
    /// How many tasks it has, on whatever nodes.
    package let tasks: Int
    let graph: FoldGraph
    private let readings: [String: TopicReading]
    /// Topics with a lateness.
    private let sorted: Set<String>
    /// Of its definition, as it is in force or, of one that is tried, would be.
    let body: JSON
    /// What brings it into force; nothing where it is.
    let withheld: [Definition]
    private let checkpointSeconds: Double
    /// Folds of the tasks that are here, by the task's number.
    private let hosts = Monitor<[Int: FoldHost]>([:])

    init(
        _ topology: StreamTopology, tasks: Int, in graph: FoldGraph, checkpointSeconds: Double,
        readings: [String: TopicReading], sorted: Set<String>, body: JSON, withheld: [Definition] = []
    ) {
        self.sorted = sorted
        self.topology = topology
        self.body = body
        self.withheld = withheld
        self.readings = readings
        self.graph = graph
        self.tasks = tasks
        self.checkpointSeconds = checkpointSeconds
    }

    func build() -> Topology { build(body) }

    /// - Parameter body: of the definition that it is built by.
    func build(_ body: JSON) -> Topology {
        topology.topology(topology.make().build(), body: body, in: graph, readings: readings, sorted: sorted)
    }

    /// Where a task began to speak; nil where it did from the beginning.
    func takeover(_ number: Int) -> Takeover? {
        body[StreamTakeover.member].flatMap { StreamTakeover($0) }.flatMap {
            $0.tasks.indices.contains(number) ? $0.tasks[number] : nil
        }
    }

    /// The runner's number of a task; nil where there is one over all partitions.
    func task(_ number: Int) -> Int? { tasks > 1 ? number : nil }

    /// The folds that run here, in the order of their tasks.
    package var folds: [FoldHost] { hosts.withLock { $0.sorted { $0.key < $1.key }.map(\.value) } }
    /// The fold of a task; nil where it runs on another node, or not yet.
    func fold(_ number: Int) -> FoldHost? { hosts.withLock { $0[number] } }
    /// The numbers of the tasks that are here.
    var numbers: [Int] { hosts.withLock { $0.keys.sorted() } }

    static func stateFile(_ name: String, _ task: Int, in directory: String) -> String {
        "\(directory)/\(name).\(task).sqlite"
    }

    /// The fold's name in the log.
    func label(_ number: Int) -> String { "fold:\(topology.name)" + (task(number).map { "/\($0)" } ?? "") }

    /// How old a copy may be before it is read anew, in seconds: half of what a compacted changelog keeps tombstones for. Behind
    /// that, keys that were removed would stay.
    private static let copyAge = 12 * 3600.0

    /// Removes a state file that nothing was written to for too long.
    static func dropStale(_ file: String) throws {
        let ages = try ["", "-wal"].map { file + $0 }.filter { FileManager.default.fileExists(atPath: $0) }.map {
            path in
            let date = try FileManager.default.attributesOfItem(atPath: path)[.modificationDate] as? Date
            return -(date ?? .distantPast).timeIntervalSinceNow
        }
        guard let age = ages.min(), age > copyAge else { return }
        for suffix in ["", "-wal", "-shm"] where FileManager.default.fileExists(atPath: file + suffix) {
            try FileManager.default.removeItem(atPath: file + suffix)
        }
    }

    func start(log: any EventLog, directory: String) throws {
        for number in 0..<tasks { try start(task: number, log: log, directory: directory) }
    }

    /// Begins to fold a task here: its state is what the disk holds, or what its changelog does where other nodes may have had it.
    func start(task number: Int, log: any EventLog, directory: String) throws {
        try FileManager.default.createDirectory(atPath: directory, withIntermediateDirectories: true)
        let fold = FoldHost(checkpointSeconds: checkpointSeconds)
        hosts.withLock { $0[number] = fold }
        fold.start(log: log) { [self] in
            let topology = build()
            let file = Self.stateFile(self.topology.name, number, in: directory)
            guard log.capabilities.contains(.transactions) else {
                return try TopologyRunner(
                    topology: topology, task: task(number), derived: [], log: log,
                    database: try StateDatabase(path: file), sink: LogSink(log: log, principal: label(number)))
            }
            // Whoever had the task is fenced off first: what the log holds then is all that it did.
            let sink = try TransactionSink(log: log, name: label(number), partition: number)
            let place = TopicPartition(self.topology.side.state, number)
            let changelog = try ChangelogWriter(
                log: log, name: label(number), place: place, identity: topology.identity)
            try Self.dropStale(file)
            let database = try StateDatabase(path: file)
            try StateCopy(log: log, place: place, database: database, identity: topology.identity)
                .catchUp { fold.isStopping }
            let runner = try TopologyRunner(
                topology: topology, task: task(number), derived: [], log: log, database: database, sink: sink)
            runner.changelog = changelog
            return runner
        }
    }

    /// Ends the folds of tasks, each with a checkpoint.
    func stop(tasks numbers: [Int]) {
        let folds = numbers.compactMap { fold($0) }
        for fold in folds { fold.askToStop() }
        for fold in folds { fold.stop() }
        hosts.withLock { hosts in for number in numbers { hosts[number] = nil } }
    }

    func stop() { stop(tasks: numbers) }

    /// - Parameter addresses: of the nodes that have tasks, by task.
    func status(_ addresses: [TopicPartition: String]) -> JSON {
        let list = folds.map(\.status)
        let now = list.map(\.now).min() ?? .distantPast
        return .object([
            "name": .string(topology.name), "tasks": .int(Int64(tasks)),
            "here": .array(numbers.map { .int(Int64($0)) }), "nodes": .object(nodes(addresses)),
            "streamTime": now == .distantPast ? .null : .string(now.description),
            "folded": .int(list.reduce(0) { $0 + $1.folded }), "emitted": .int(list.reduce(0) { $0 + $1.emitted }),
            "late": .int(list.reduce(0) { $0 + $1.late }), "failures": .int(list.reduce(0) { $0 + $1.failures }),
            "drained": .bool(list.allSatisfy(\.drained)),
        ])
    }

    /// The tasks of other nodes, by address.
    private func nodes(_ addresses: [TopicPartition: String]) -> [String: JSON] {
        let own = Set(numbers)
        var found: [String: [JSON]] = [:]
        for number in 0..<tasks where !own.contains(number) {
            guard let address = addresses[TopicPartition(topology.name, number)] else { continue }
            found[address, default: []].append(.int(Int64(number)))
        }
        return found.mapValues { .array($0) }
    }

    var failures: [String] {
        numbers.compactMap { number in
            // A fold that was fenced off is another node's: nothing is wrong with it.
            guard let status = fold(number)?.status, let failure = status.failure, !status.isFenced else { return nil }
            return "the stream '\(topology.name)' stopped in task \(number): \(failure)"
        }
    }
}
