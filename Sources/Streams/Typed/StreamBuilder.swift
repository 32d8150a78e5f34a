import Base
import EventLog

/// Where a topology of typed streams is written down: sources, what is done to them, and where it goes. Names follow Kafka
/// Streams and Flink. What is built is one `Stage`: it is fed by event time like every other, so operators see their events
/// in the order of (event time, topic rank, partition, offset) and never a late one.
public final class StreamBuilder {
    /// Names the stream everywhere: in ids, side topics, commands and questions.
    public let name: String
    @usableFromInline var nodes: [StreamNode] = []
    /// Handlers of what arrives, by topic in the order of their first use, which is the rank of a topic.
    @usableFromInline var sources: [(topic: String, handle: (StreamEvent, StreamFlow) throws -> Void)] = []
    var erasures: [(topic: String, handle: (String, StreamFlow) throws -> Void)] = []
    var timers: [Int: (_ key: String, _ at: Instant, StreamFlow) throws -> Void] = [:]
    var stores: [any AnyStateStore] = []
    /// Tables that are served, by name, in the order in which they were named.
    var views: [(name: String, read: (String) throws -> (value: JSON, time: Instant)?)] = []

    /// How a topology is run.
    public enum Parallelism: Sendable, Equatable {
        /// One fold over all partitions.
        case single
        /// One fold a partition, each with state of its own, beside each other. All inputs have the same number of partitions,
        /// and so have the outputs; state is kept under keys that stand in one partition.
        case byPartition
        /// So many folds beside each other, whatever the partitions: each reads all of the inputs, and keeps, and writes, the keys
        /// that are its own (by the hash that Kafka's producers partition by). For state under another key than the topic's;
        /// outputs have as many partitions, and each key stands in its own.
        case byKey(tasks: Int)
    }

    /// What becomes of an event that an operator throws at.
    public enum FailurePolicy: String, Sendable {
        /// It goes to `NAME.unfolded` with its place, raw data and reason, and the fold goes on.
        case record
        /// The fold ends before it, and begins again there when the program is started with a mended processor.
        case stop
    }

    /// What becomes of an event that an operator throws at.
    public let onFailure: FailurePolicy
    /// How the topology is run.
    public let parallelism: Parallelism
    /// What was written into operators (a filter's condition, a processor's body) is compiled and cannot be compared: whoever
    /// changes it gives the topology another version, so that old state is not taken for the new one's.
    public let version: Int

    /// - Parameters:
    ///   - name: letters, digits, `.`, `_` and `-`; it stands in topics.
    ///   - version: another one for a topology of which closures were changed.
    ///   - parallelism: one fold, or several tasks.
    ///   - onFailure: record what cannot be folded and go on, or stop before it.
    public init(
        _ name: String, version: Int = 1, runs parallelism: Parallelism = .single, onFailure: FailurePolicy = .record
    ) {
        self.onFailure = onFailure
        self.name = name
        self.version = version
        self.parallelism = parallelism
    }

    /// The events of a topic. Their keys are those of the events.
    @inlinable
    public func stream<Value: StreamValue>(_ topic: String, _ type: Value.Type = Value.self) -> EventStream<Value> {
        let stream = EventStream<Value>(self, node(.source, topic, parents: [], topic: topic, mayThrow: true))
        let outlet = stream.outlet
        sources.append(
            (
                topic,
                { event, flow in
                    let value = try Value(FieldReader(event.document))
                    try outlet.send(StreamRecord(key: event.key, value: value, time: event.time), flow)
                }
            ))
        return stream
    }

    /// The newest value of each key of a topic; an event without data takes its key away.
    public func table<Value: StreamValue>(_ topic: String, _ type: Value.Type = Value.self) -> EventTable<Value> {
        let table = stream(topic, type).keyedByEvent().table("\(topic) table")
        let isShared = isSharedByKey
        erasures.append(
            (
                topic,
                { key, flow in
                    if !isShared || flow.owns(key) { try table.remove(key, flow) }
                }
            ))
        return table
    }

    @usableFromInline
    func node(
        _ kind: StreamNode.Kind, _ name: String, parents: [Int], topic: String? = nil, store: String? = nil,
        settings: [String] = [], mayThrow: Bool = false
    ) -> Int {
        nodes.append(
            StreamNode(
                number: nodes.count, kind: kind, name: name, parents: parents, topic: topic, settings: settings,
                store: store, mayThrow: mayThrow))
        return nodes.count - 1
    }

    /// A store's name: of the topology, the operator's number and its name, so that two of a kind are kept apart.
    func store<Value: StateValue>(_ node: Int, _ type: Value.Type = Value.self) -> StateStore<Value> {
        let store = StateStore<Value>(name: "\(name).\(node).\(nodes[node].name)")
        nodes[node].store = store.name
        stores.append(store)
        return store
    }

    /// What was written down, as it runs. A builder builds one stage: the state is in it, and goes with it. Operators name their
    /// builder, so it keeps nothing that names them.
    package func build() -> any Stage {
        defer { (sources, erasures, timers, stores, views) = ([], [], [:], [], []) }
        return TypedStage(self)
    }

    /// What was written down, for people and programs.
    public var description: TopologyDescription { TopologyDescription(name: name, version: version, nodes: nodes) }
}

/// An operator as it is described.
public struct StreamNode: Sendable {
    /// What an operator does.
    public enum Kind: String, Sendable {
        /// Reads a topic.
        case source
        /// Leaves values out.
        case filter
        /// Makes one value of each.
        case map
        /// Makes any number of values of each.
        case flatMap
        /// Sends each value to one of several streams.
        case branch
        /// Two streams as one.
        case merge
        /// Gives values another key.
        case key
        /// Keeps a state of one's own.
        case process
        /// Keeps windows.
        case window
        /// Keeps the newest value of each key.
        case table
        /// Brings two streams, or a stream and a table, together.
        case join
        /// Writes a topic.
        case sink
    }

    /// Its place in the order in which operators were written down.
    public let number: Int
    /// What it does.
    public let kind: Kind
    /// What it was called.
    public let name: String
    /// The operators whose values come to it.
    public let parents: [Int]
    /// Of a source or a sink.
    public let topic: String?
    /// What it was told besides its name: measures, lengths, bounds. With others its state means something else.
    @usableFromInline var settings: [String]
    /// Of what keeps state.
    public var store: String?
    /// Whether one key's values stand in one partition; nil where that is so if it is of its parents.
    @usableFromInline var isPartitioned: Bool?
    /// Whether what it calls may throw; a closure that cannot says so by its type.
    @usableFromInline var mayThrow = false
}

/// Runs the operators of a builder.
private final class TypedStage: Stage {
    let name: String
    let inputs: [String]
    let outputs: [String]
    let stores: [any AnyStateStore]
    private let handlers: [String: [(StreamEvent, StreamFlow) throws -> Void]]
    private let erasures: [String: [(String, StreamFlow) throws -> Void]]
    private let timers: [Int: (String, Instant, StreamFlow) throws -> Void]
    private let served: [(name: String, read: (String) throws -> (value: JSON, time: Instant)?)]
    /// Whether something may throw behind an effect of the same event, so that effects wait until it is through.
    private let undoes: Bool
    private var flow: StreamFlow?

    init(_ builder: StreamBuilder) {
        name = builder.name
        var seen: Set<String> = []
        inputs = builder.sources.map(\.topic).filter { seen.insert($0).inserted }
        var sinks: Set<String> = []
        outputs = builder.nodes.filter { $0.kind == .sink }.compactMap(\.topic).filter { sinks.insert($0).inserted }
        stores = builder.stores
        handlers = Dictionary(grouping: builder.sources, by: \.topic).mapValues { $0.map(\.handle) }
        erasures = Dictionary(grouping: builder.erasures, by: \.topic).mapValues { $0.map(\.handle) }
        timers = builder.timers
        served = builder.views
        undoes = builder.mayThrowBehindEffects
        for store in stores { store.keepsUndo = undoes }
    }

    var views: [String] { served.map(\.name) }

    func read(view: String, key: String) throws -> (value: JSON, time: Instant)? {
        try served.first { $0.name == view }?.read(key)
    }

    private func flow(_ context: StageContext) -> StreamFlow {
        if let flow, flow.context === context { return flow }
        let fresh = StreamFlow(context, stage: name, waits: undoes)
        flow = fresh
        return fresh
    }

    func process(_ event: StreamEvent, _ context: StageContext) throws {
        let flow = flow(context)
        flow.begin(event)
        try guarded(flow) { for handle in handlers[event.topic] ?? [] { try handle(event, flow) } }
    }

    func erase(_ event: StreamEvent, _ context: StageContext) throws {
        let flow = flow(context)
        flow.begin(event)
        try guarded(flow) { for handle in erasures[event.topic] ?? [] { try handle(event.key, flow) } }
    }

    func fire(timer key: String, at time: Instant, _ context: StageContext) throws {
        // By bytes: a bar and a mark that a key begins with are one character.
        guard let bar = key.utf8.firstIndex(of: 0x7C), let node = Int(key[..<bar]), let handle = timers[node] else {
            return
        }
        let flow = flow(context)
        flow.begin(timer: key, at: time)
        try guarded(flow) { try handle(String(Substring(key.utf8[key.utf8.index(after: bar)...])), time, flow) }
    }

    /// Whatever an operator throws is the event's own: it is recorded beside it, nothing else is left of it, and the fold goes on.
    private func guarded(_ flow: StreamFlow, _ body: () throws -> Void) throws {
        do {
            try body()
            guard undoes else { return }
            flow.release()
            for store in stores { store.settle() }
        } catch {
            if undoes {
                flow.drop()
                for store in stores { store.undo() }
            }
            guard error is any DescribedError else {
                throw StreamsError("processor-failed", "an operator of '\(name)' threw", cause: error)
            }
            throw error
        }
    }
}

extension StreamFlow {
    /// Sets a timer of an operator. It fires after every event with a time up to its own; the same one is set once.
    func setTimer(_ node: Int, at time: Instant, key: String) { set("\(node)|\(key)", at: time) }
}
