import Base
import EventLog
import GRDB
import RecordFormat

/// A piece of the lineage graph, drawn upstream from one node to the input events. Nodes and edges in the order in which
/// they were reached.
package struct LineageGraph: Sendable {
    package struct Node: Sendable {
        package let id: String
        package let kind: String
        package let position: String?
        package let facts: [(String, String)]
        package let depth: Int
    }

    package private(set) var nodes: [Node] = []
    package private(set) var edges: [(from: String, to: String)] = []

    /// More nodes lie upstream than one graph may have.
    package private(set) var isTruncated = false

    /// Nodes of one graph.
    package static let limit = 5_000

    private var known: Set<String> = []
    private var queue: [(id: String, depth: Int)] = []

    /// - Parameter depth: how many steps upstream; nil goes to the input events.
    package static func upstream(
        of start: String, depth: Int?, log: any EventLog, database: any DatabaseReader
    ) throws -> LineageGraph {
        var graph = LineageGraph()
        graph.queue = [(start, 0)]
        graph.known = [start]
        var next = 0
        while next < graph.queue.count {
            let (id, level) = graph.queue[next]
            next += 1
            guard next <= limit else {
                graph.isTruncated = true
                break
            }
            try graph.visit(id, level, expand: depth.map { level < $0 } ?? true, log, database)
        }
        return graph
    }

    private mutating func link(_ from: String, _ to: String, _ level: Int, _ expand: Bool) {
        guard expand else { return }
        edges.append((from, to))
        if known.insert(to).inserted { queue.append((to, level + 1)) }
    }

    private func event(
        _ node: String, _ topic: String, _ log: any EventLog, _ database: any DatabaseReader
    ) throws -> (position: String, data: JSON)? {
        let place = try database.read { database in
            try Row.fetchOne(
                database, sql: "SELECT partition, offset FROM lineage_nodes WHERE node = ? AND topic = ?",
                arguments: [node, topic]
            )
            .map { (partition: $0[0] as Int, offset: $0[1] as Int64) }
        }
        guard let place else { return nil }
        return try Self.read(TopicPartition(topic, place.partition), place.offset, log).map {
            ("\(topic)/\(place.partition)@\(place.offset)", $0)
        }
    }

    static func read(_ partition: TopicPartition, _ offset: Int64, _ log: any EventLog) throws -> JSON? {
        var found: JSON?
        try log.forEachEvent(partition, from: offset, to: offset + 1) { event in
            found = event.data.flatMap { try? JSON(parsing: $0) }
            return false
        }
        return found
    }

    private mutating func visit(
        _ id: String, _ level: Int, expand: Bool, _ log: any EventLog, _ database: any DatabaseReader
    ) throws {
        let kind = String(id.prefix { $0 != ":" })
        let rest = String(id.dropFirst(kind.count + 1))
        func add(_ position: String?, _ facts: [(String, String)]) {
            nodes.append(Node(id: id, kind: kind, position: position, facts: facts, depth: level))
        }
        func missing() -> LineageError {
            LineageError(
                "unknown-node",
                "the log holds no '\(id)'; nodes are model:NAME@VERSION, prediction:ID, outcome:ID, question:ID, run:NAME@VERSION"
            )
        }
        switch kind {
        case "prediction":
            guard let (position, data) = try event(id, "predictions.served", log, database) else { throw missing() }
            add(position, facts(data, ["model", "version", "score", "askedAt"]))
            link(id, "question:\(rest)", level, expand)
            link(id, "model:\(data["model"]?.string ?? "")@\(data["version"]?.int ?? 0)", level, expand)
        case "question":
            guard let (position, data) = try event(id, "questions.asked", log, database) else { throw missing() }
            add(position, facts(data, ["question", "askedAt"]))
            try question(id, data, position, level, expand, log)
        case "outcome":
            guard let (position, data) = try event(id, "outcomes.observed", log, database) else { throw missing() }
            add(position, facts(data, ["label", "value", "askedAt"]))
            link(id, "question:\(rest)", level, expand)
            if let truth = data["truth"]?.string { link(id, "event:\(truth)", level, expand) }
        case "model":
            guard let (position, data) = try event(id, "models.registered", log, database) else { throw missing() }
            let digest = data["artifact"]?["digest"]?.string ?? ""
            add(position, [("digest", digest), ("auc", data["metrics"]?["auc"]?.double.map { "\($0)" } ?? "")])
            link(id, "run:\(rest)", level, expand)
        case "run": try run(id, rest, level, expand, missing, log, database)
        case "dataset":
            guard let (position, data) = try event("run:\(rest)", "training.completed", log, database) else {
                throw missing()
            }
            let dataset = data["dataset"]
            add(position, facts(dataset ?? [:], ["digest", "rows", "from", "cut"]))
            for (partition, range) in JSON.sorted(dataset?["positions"]?.object ?? [:]) {
                guard let bounds = range.array?.compactMap(\.int), bounds.count == 2 else { continue }
                link(id, "range:\(partition)@\(bounds[0])..<\(bounds[1])", level, expand)
            }
            guard let (_, request) = try event("run:\(rest)", "training.requested", log, database) else { return }
            link(id, "definition:Question/\(request["question"]?.string ?? "")", level, expand)
            for (partition, next) in JSON.sorted(request["asOf"]?.object ?? [:]) {
                link(id, "range:\(partition)@0..<\(next.int ?? 0)", level, expand)
            }
        case "trigger":
            guard let (position, data) = try event(id, "retraining.triggered", log, database) else { throw missing() }
            add(position, facts(data, ["policy", "at"]))
            for cause in data["causes"]?.array ?? [] {
                for name in ["position", "deployed"] {
                    if let place = cause[name]?.string { link(id, "event:\(place)", level, expand) }
                }
                for place in cause["positions"]?.array ?? [] { link(id, "event:\(place.string ?? "")", level, expand) }
            }
        case "definition":
            guard let found = try event(id, "headrace.definitions", log, database) else { throw missing() }
            add(found.position, [])
        case "event":
            guard let position = Position(rest),
                let data = try Self.read(TopicPartition(position.topic, position.partition), position.offset, log)
            else { throw missing() }
            add(rest, [("data", String(data.text.prefix(120)))])
            // What monitors measured names how far it had read.
            for (partition, next) in JSON.sorted(data["asOf"]?.object ?? [:]) {
                link(id, "range:\(partition)@0..<\(next.int ?? 0)", level, expand)
            }
        case "window", "range":
            // They name their inputs completely; nothing lies behind them but events.
            add(nil, [])
        default: throw missing()
        }
    }

    private mutating func run(
        _ id: String, _ rest: String, _ level: Int, _ expand: Bool, _ missing: () -> LineageError, _ log: any EventLog,
        _ database: any DatabaseReader
    ) throws {
        guard let (position, request) = try event(id, "training.requested", log, database) else { throw missing() }
        let completed = try event(id, "training.completed", log, database)?.data
        nodes.append(
            Node(
                id: id, kind: "run", position: position,
                facts: facts(request, ["cut"]) + [("xgboost", completed?["fingerprint"]?["xgboost"]?.string ?? "")],
                depth: level))
        link(id, "dataset:\(rest)", level, expand)
        let model = request["model"]?.string ?? ""
        link(id, "definition:Model/\(model)", level, expand)
        if let incumbent = request["incumbent"]?.int {
            edges += expand ? [(id, "model:\(model)@\(incumbent)")] : []
        }
        let trigger = "trigger:\(model)@\(request["cut"]?.string ?? "")"
        if try event(trigger, "retraining.triggered", log, database) != nil { link(id, trigger, level, expand) }
    }

    private mutating func question(
        _ id: String, _ data: JSON, _ position: String, _ level: Int, _ expand: Bool, _ log: any EventLog
    ) throws {
        if let place = Position(position) {
            try log.forEachEvent(TopicPartition(place.topic, place.partition), from: place.offset, to: place.offset + 1)
            { event in
                if let cause = event.header(EventHeader.causation) { link(id, "event:\(cause)", level, expand) }
                return false
            }
        }
        let asked = data["askedAt"]?.string ?? ""
        for window in data["windows"]?.array ?? [] {
            guard let parts = window.array, parts.count == 3, let view = parts[0].string, let key = parts[1].string,
                let span = parts[2].int
            else { continue }
            let name = "window:\(view)/\(key)/\(span == 0 ? "newest" : "\(span)s")@\(asked)"
            link(id, name, level, expand)
            if expand {
                edges.append((name, "definition:FeatureView/\(view)"))
                if known.insert("definition:FeatureView/\(view)").inserted {
                    queue.append(("definition:FeatureView/\(view)", level + 2))
                }
            }
        }
        for (partition, next) in JSON.sorted(data["asOf"]?.object ?? [:]) {
            link(id, "range:\(partition)@0..<\(next.int ?? 0)", level, expand)
        }
    }

    private func facts(_ data: JSON, _ keys: [String]) -> [(String, String)] {
        keys.compactMap { key in data[key].map { (key, $0.string ?? $0.text) } }
    }

    package var json: JSON {
        .object([
            "nodes": .array(
                nodes.map { node in
                    .object([
                        "id": .string(node.id), "kind": .string(node.kind),
                        "position": node.position.map { .string($0) } ?? .null,
                        "depth": .int(Int64(node.depth)),
                        "facts": .object(
                            Dictionary(
                                node.facts.map { ($0.0, JSON.string($0.1)) }, uniquingKeysWith: { first, _ in first })),
                    ])
                }),
            "truncated": .bool(isTruncated),
            "edges": .array(edges.map { .object(["from": .string($0.from), "to": .string($0.to)]) }),
        ])
    }
}
