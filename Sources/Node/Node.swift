import Base
import CPlatform
import Catalog
import Connectors
import Datasets
import EventLog
import Foundation
import GRDB
import Gateway
import KafkaLog
import Lineage
import Models
import Privacy
import RecordFormat
import Streams
import Supervision
import Training

/// Everything wired together: the log, the gateway, the fold, the views, the effectors and the connectors.
package final class Node: Sendable {
    package let configuration: NodeConfiguration
    package let log: any EventLog
    /// Keeps the data directory this node's own where the log is elsewhere.
    private let lock: Monitor<(any Sendable)?>
    package let gateway: Gateway
    let keys: KeyStore
    package let views: DatabasePool
    package let fold: FoldHost
    private let streamBox = Monitor<[StreamService]>([])
    /// The topologies of typed streams that the program brings, each with its folds.
    package var streams: [StreamService] { streamBox.withLock { $0 } }
    let shareBox = Monitor<TaskShare?>(nil)
    /// This node's part in the streams' tasks, where nodes share them: on Kafka.
    var share: TaskShare? { shareBox.withLock { $0 } }
    let registryBox: Monitor<DefinitionRegistry>
    let running = Monitor(Running())
    let principal = "node"
    /// What the last verification of this node's log found.
    let damageFound = Monitor<[String]>([])
    /// Letters are read apart from Swift's own threads.
    let letterWork = BlockingPool(name: "letters", threads: 1, limit: 64)
    /// What is folded again for a question about the past takes its time.
    let pastWork = BlockingPool(name: "past", threads: 2, limit: 16)
    /// Changes to what is in force, and erasures, come one at a time.
    let applying = Monitor(())
    /// Versions of datasets come and go one at a time.
    let announcing = Monitor(())
    let viewBox = Monitor<[ViewFold]>([])
    /// Views that are folded beside the workspace's own.
    var viewFolds: [ViewFold] { viewBox.withLock { $0 } }
    let watch = Monitor(FeatureWatch())
    let (serving, chunks) = (Monitor(ServingCache()), Monitor<ChunkStore?>(nil))

    struct Running {
        var connectors: [CSVHistorySource] = []
        var threads: [BlockingThread] = []
        var stopping = false
        /// The log's version up to which the views are known to be complete.
        var viewsVersion: UInt64?
        /// The log's version up to which models hold their inputs.
        var pinsVersion: UInt64?
        var effectorBusy = false
        var failures: [String] = []
        var notices: [String] = []
        /// Parts that were interrupted and went on, with the last reason.
        var troubles: [String: String] = [:]
        var started = false
        var features: [String] = []
    }

    package var registry: DefinitionRegistry { registryBox.withLock { $0 } }

    /// Opens the data directory, applies what is new, and compiles the definitions. Nothing runs yet.
    package init(_ configuration: NodeConfiguration) throws {
        self.configuration = configuration
        try Node.check(configuration)
        let (log, lock) = try LogChoice.open(configuration)
        (self.log, self.lock) = (log, Monitor(lock))
        let notice: String?
        do {
            if configuration.isWorker {
                // Nothing is sealed and nothing opened here: what folds see of personal fields is sealed.
                keys = try KeyStore(DiskVolume(configuration.dataDirectory + "/keys"))
                notice = nil
            } else {
                let choice = try KeyChoice(configuration, log: log)
                (keys, notice) = (choice.store, choice.notice)
            }
        } catch {
            log.close()
            throw error
        }
        gateway = Gateway(log: log, keys: keys, clock: { Instant.wallClock() })
        fold = FoldHost(checkpointSeconds: configuration.checkpointSeconds)
        do {
            views = try Node.viewDatabase(configuration)
        } catch {
            log.close()
            keys.close()
            throw error
        }
        registryBox = Monitor(DefinitionRegistry())
        do {
            try open(notice)
        } catch {
            // Who is refused leaves nothing behind that the next one would find locked.
            log.close()
            keys.close()
            throw error
        }
    }

    private static func viewDatabase(_ configuration: NodeConfiguration) throws -> DatabasePool {
        var settings = Configuration()
        settings.journalMode = .wal
        settings.prepareDatabase { database in
            try database.execute(sql: "PRAGMA synchronous = NORMAL")
            try database.execute(sql: "PRAGMA cache_size = -64000")
        }
        do {
            return try DatabasePool(path: configuration.viewsFile, configuration: settings)
        } catch {
            throw NodeError(
                "views-unreadable",
                "\(configuration.viewsFile) cannot be opened; everything in it comes from the log: delete it (and the same with -wal and -shm), and start again",
                cause: error, fault: .world)
        }
    }

    private func open(_ notice: String?) throws {
        try log.declare(TopicLayout(name: DefinitionRegistry.topic, partitions: 1))
        try LogChoice.check(log, configuration)
        let known = configuration.isWorker ? try awaitDefinitions() : try DefinitionRegistry(log: log)
        registryBox.withLock { $0 = known }
        guard !configuration.isWorker else {
            try LogChoice.remember(log, configuration)
            try declareTopics()
            try bringStreams()
            return
        }
        let platform = try Workspace.read(directory: configuration.platformTopics)
        try append(platform, platform: true)
        try LogChoice.remember(log, configuration)
        // What the log holds tells whether a history has begun, so the topics that it has are known first.
        try declareTopics()
        if let workspace = configuration.workspace { try apply(directory: workspace) }
        try declareTopics()
        try bringStreams()
        try repeatErasures()
        if let notice { running.withLock { $0.notices.append(notice) } }
    }

    /// Finds what can be found before anything is made: a refused start leaves no data directory behind.
    private static func check(_ configuration: NodeConfiguration) throws {
        guard !configuration.isWorker || configuration.kafka != nil || LogChoice.remembered(configuration) != nil else {
            throw NodeError(
                "no-kafka",
                "a share of the streams is folded where nodes share a log, on Kafka: say where with --kafka HOST:PORT")
        }
        for connector in try sources(configuration) { try CSVHistorySource.check(connector) }
        // What a log declares already may be what the folder stands on, so only a first one is judged alone.
        guard let workspace = configuration.workspace,
            !FileManager.default.fileExists(atPath: configuration.logDirectory)
        else { return }
        let platform = try Workspace.read(directory: configuration.platformTopics)
        let definitions = platform + (try Workspace.read(directory: workspace))
        _ = try WorkspaceTopology(
            try CompiledWorkspace(definitions, platformTopics: Set(platform.map(\.name))))
    }

    private static func sources(_ configuration: NodeConfiguration) throws -> [ConnectorConfiguration] {
        try configuration.connectors.map { file in
            let connector = try ConnectorConfiguration(file: file)
            guard connector.values["connector.class"] == CSVHistorySource.className else {
                throw ConnectorsError(
                    "unknown-class", "\(file): the only connector class is \(CSVHistorySource.className)")
            }
            return configuration.until.map { connector.with("until", $0) } ?? connector
        }
    }

    /// - Parameter begun: the workspace's fold has begun, and goes on reading what it reads.
    func append(_ definitions: [Definition], platform: Bool, begun: Bool = false) throws {
        let events = registry.events(
            applying: definitions, platform: platform, at: Instant.wallClock(), begun: begun)
        guard !events.isEmpty else { return }
        let receipt = try log.append(
            LogAppend(principal: principal, events: events.map { (DefinitionRegistry.topic, 0, $0) }))
        if let number = receipt.events.firstIndex(where: \.duplicate) {
            throw NodeError(
                "definition-lost",
                "the log knows '\(events[number].id)', and its event in '\(DefinitionRegistry.topic)' is lost to damage: restore a backup, or begin a new data directory",
                fault: .world)
        }
        let fresh = try DefinitionRegistry(log: log)
        registryBox.withLock { $0 = fresh }
        serving.withLock { $0.forget() }
    }

    func declareTopics() throws {
        let isStarted = running.withLock { $0.started }
        for entry in registry.all(TopicDefinition.kind) {
            // A running fold knows the versions that it started with: what comes now is written in those.
            if isStarted, gateway.topic(entry.definition.name) != nil { continue }
            try gateway.declare(try TopicDefinition(entry.definition), reserved: entry.platform)
        }
        for topic in FoldGraph(registry.all(StreamTopology.kind).map(\.definition)).streamTopics {
            gateway.reserve(topic)
        }
        if !configuration.isWorker { try noteKeys() }
    }

    private func bringStreams() throws {
        guard !configuration.streams.isEmpty else { return }
        let declared = try Node.declareStreams(
            configuration.streams, log: log, registry: registry, triesChanges: configuration.triesChanges)
        try declared.graph.with(try WorkspaceTopology(try compile())).refuseCycles()
        if configuration.isWorker {
            try requireInForce(declared.definitions)
        } else {
            try append(declared.definitions, platform: true)
            try declareTopics()
        }
        let workspace = try compile()
        let graph = declared.graph.with(try WorkspaceTopology(workspace))
        streamBox.withLock { list in
            list = configuration.streams.map {
                let body = declared.bodies[$0.name] ?? .null
                return StreamService(
                    $0, tasks: declared.tasks[$0.name] ?? 1, in: graph,
                    checkpointSeconds: configuration.checkpointSeconds, readings: Self.readings(body, registry),
                    sorted: workspace.sorted,
                    body: body, withheld: declared.withheld[$0.name] ?? [])
            }
        }
    }

    // MARK: Running

    /// Starts the fold, the views, the effectors and the connectors; of a worker its share of the streams.
    /// - Parameter address: where this node is reached.
    package func start(at address: String = "") throws {
        guard !configuration.isWorker else {
            running.update { $0.started = true }
            return try startStreams(address)
        }
        let workspace = try compile()
        let connectors = try Node.sources(configuration).map {
            try CSVHistorySource($0, log: log, gateway: gateway)
        }
        try feed(workspace, connectors)
        let stateFile = configuration.stateFile
        fold.start(log: log) { [log] in
            let topology = try WorkspaceTopology(workspace)
            return try TopologyRunner(
                topology: topology.topology, derived: WorkspaceTopology.derived, log: log,
                database: try StateDatabase(path: stateFile), sink: try Node.sink(log))
        }
        let waiting = try waits(workspace)
        try startStreams(address)
        try startViewFolds()
        running.update { state in
            state.started = true
            state.connectors = connectors
            state.features = workspace.views.map(\.name)
            state.notices += waiting
            state.threads.append(BlockingThread(name: "views") { [self] in viewLoop() })
            state.threads.append(BlockingThread(name: "gateway") { [self] in gatewayLoop() })
            state.threads.append(BlockingThread(name: "consistency") { [self] in consistencyLoop() })
            state.threads.append(BlockingThread(name: "view folds") { [self] in viewFoldLoop() })
            state.threads.append(BlockingThread(name: "training") { [self] in effectorLoop() })
            if log.capabilities.contains(.pins) {
                state.threads.append(BlockingThread(name: "pins") { [self] in pinLoop() })
            }
            for connector in connectors {
                state.threads.append(
                    BlockingThread(name: "connector-\(connector.configuration.name)") { [gateway] in
                        connector.run()
                        if connector.status.state == "FINISHED" { gateway.release(connector.topics) }
                    })
            }
        }
    }

    /// The log as an embedded one; nil where it is not.
    package var embedded: EmbeddedLog? { log as? EmbeddedLog }
    /// The log as one on Kafka; nil where it is not.
    package var kafka: KafkaLog? { log as? KafkaLog }

    private static func sink(_ log: any EventLog) throws -> any DerivedSink {
        let name = "fold:workspace"
        return log.capabilities.contains(.transactions)
            ? try TransactionSink(log: log, name: name) : LogSink(log: log, principal: name)
    }

    /// Tells the gateway what the fold reads, and closes what a crash left open.
    private func feed(_ workspace: CompiledWorkspace, _ connectors: [CSVHistorySource]) throws {
        let topology = try WorkspaceTopology(workspace).topology
        let answers = WorkspaceTopology.answers.union(WorkspaceTopology.attachments)
        // What another fold writes has progress from that fold.
        let inputs = topology.inputs(derived: WorkspaceTopology.derived).filter {
            !answers.contains($0) && topology.upstream[$0] == nil
        }.flatMap { topic in (0..<log.partitions(of: topic)).map { TopicPartition(topic, $0) } }
        var all = inputs
        for place in streamInputs + viewInputs where !all.contains(place) { all.append(place) }
        gateway.feed(
            inputs: all, claimed: Set(connectors.flatMap(\.topics)))
        try gateway.resumeFeeds()
    }

    /// How long a part of the node waits after trouble that passes, in seconds.
    private static let pause = 0.5

    /// Lets a part of the node work until the node stops: after trouble that passes it begins again at what it has
    /// stored, after any other it has failed.
    func work(_ part: String, _ body: () throws -> Void) {
        while !stopping {
            do {
                return try body()
            } catch let error as EventLogError where error.retriable || error.code == "outcome-unknown" {
                running.update { $0.troubles[part] = error.message }
                _ = running.wait(seconds: Node.pause) { $0.stopping ? true : nil }
            } catch {
                return fail("\(part) stopped", error)
            }
        }
    }

    private func gatewayLoop() {
        work("the gateway's progress") {
            while !stopping {
                try gateway.closeInstant()
                _ = running.wait(seconds: Double(Gateway.closeAfter) / 2000) { $0.stopping ? true : nil }
            }
        }
    }

    var stopping: Bool { running.withLock { $0.stopping } }

    private func fail(_ what: String, _ error: any Error) {
        running.update { $0.failures.append("\(what): \(error)") }
    }

    private func viewLoop() {
        work("the views") {
            let runner = try PartitionRunner(
                log: log, queue: views,
                projections: [PredictionProjection(), MonitorProjection(), ModelProjection(), LineageProjection()])
            while !stopping {
                let seen = log.waitForChange(after: 0, seconds: 0)
                let worked = try runner.runSlice()
                running.update { $0.viewsVersion = worked ? nil : seen }
                if !worked { _ = log.waitForChange(after: seen, seconds: 0.1) }
            }
        }
    }

    private func effectorLoop() {
        work("the training effector") {
            let effector = TrainingEffector(
                log: log, principal: "effector:training", code: BuildIdentity.code,
                fingerprint: BuildIdentity.fingerprint)
            while !stopping {
                let seen = log.waitForChange(after: 0, seconds: 0)
                running.update { $0.effectorBusy = true }
                let worked = try effector.runSlice()
                running.update { $0.effectorBusy = false }
                if !worked { _ = log.waitForChange(after: seen, seconds: 0.5) }
            }
        }
    }

    private func pinLoop() {
        work("the pins of models") {
            var pins = ModelPins(log: log)
            while !stopping {
                let seen = log.waitForChange(after: 0, seconds: 0)
                try pins.runSlice()
                running.update { $0.pinsVersion = seen }
                _ = log.waitForChange(after: seen, seconds: 0.5)
            }
        }
    }

    package func stop() {
        let (connectors, threads) = running.update { state in
            state.stopping = true
            return (state.connectors, state.threads)
        }
        for connector in connectors { connector.stop() }
        fold.stop()
        share?.stop()
        for stream in streams { stream.stop() }
        for view in viewFolds { view.host.stop() }
        for thread in threads { thread.join() }
        // What is not noted now is noted at the next start, or was on the disk of this one alone.
        if !configuration.isWorker { try? noteKeys() }
        log.close()
        keys.close()
        try? FileManager.default.removeItem(atPath: configuration.addressFile)
        lock.update { $0 = nil }
    }

    /// True when the connectors are through, the fold has nothing left, no training is open and the views have caught up.
    package var isSettled: Bool {
        guard connectors.allSatisfy({ ["FINISHED", "FAILED", "STOPPED"].contains($0.status.state) }),
            share?.hasJoined != false, fold.status.drained,
            streams.allSatisfy({ $0.folds.allSatisfy(\.status.drained) }),
            viewFolds.allSatisfy(isAtRest)
        else {
            return false
        }
        // Read after the fold came to rest: what it emitted last is in this version.
        let version = log.waitForChange(after: 0, seconds: 0)
        let (views, busy, pins) = running.withLock { ($0.viewsVersion, $0.effectorBusy, $0.pinsVersion) }
        // Both of this very version: what came a moment ago may not have been looked at yet.
        let isPinned = pins == version || !log.capabilities.contains(.pins)
        let folds = [fold] + streams.flatMap(\.folds) + viewFolds.map(\.host)
        return views == version && !busy && isPinned && folds.allSatisfy { $0.status.drainedVersion == version }
    }

    /// False for a directory that was only opened, to answer a command.
    package var isStarted: Bool { running.withLock { $0.started } }

    package var connectors: [(name: String, status: ConnectorStatus)] {
        running.withLock { $0.connectors }.map { ($0.configuration.name, $0.status) }
    }

    /// Records how a play of history went.
    package func recordRun(seconds: Double, started: Instant) throws {
        let data = JSON.object([
            "seconds": .double(seconds), "events": .int(Int64(log.eventCount)),
            "peakMemoryBytes": .int(Int64(headrace_peak_memory())),
            "started": .string(started.description),
        ])
        _ = try log.append(
            LogAppend(
                principal: principal,
                events: [
                    (
                        "headrace.runs", 0,
                        NewEvent(
                            id: "run:\(started)", source: "headrace:/node", type: "run.finished",
                            time: Instant.wallClock(), data: data.canonical)
                    )
                ]))
    }
}
