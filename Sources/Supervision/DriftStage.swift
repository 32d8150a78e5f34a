import Base
import Learning
import Streams

/// The vectors of the running day and the references of the deployed model.
package struct DriftState: StateValue {
    var rows: [Float] = []
    var width: Int = 0
    /// By feature, in vector order; empty before the first deployment.
    var references: [StabilityReference] = []
    var limits: [Double] = []
    var version: Int64 = 0
    var deployed = ""

    init() {}

    package func encode(into writer: inout ByteWriter) {
        writer.append(little: UInt32(width))
        writer.append(little: UInt32(rows.count))
        for value in rows { writer.append(value) }
        writer.append(little: version)
        writer.append(sized: deployed)
        writer.append(little: UInt32(references.count))
        for (reference, limit) in zip(references, limits) {
            writer.append(little: UInt32(reference.edges.count))
            for edge in reference.edges { writer.append(edge) }
            for share in reference.shares { writer.append(share) }
            writer.append(limit)
        }
    }

    package init(decoding reader: inout ByteReader) throws(BaseError) {
        width = Int(try reader.little(UInt32.self))
        let count = Int(try reader.little(UInt32.self))
        try reader.require(count * 4)
        for _ in 0..<count { rows.append(try reader.float()) }
        version = try reader.little()
        deployed = try reader.sizedText()
        for _ in 0..<(try reader.little(UInt32.self)) {
            let edgeCount = Int(try reader.little(UInt32.self))
            var edges: [Double] = []
            for _ in 0..<edgeCount { edges.append(try reader.double()) }
            var shares: [Double] = []
            for _ in 0..<edgeCount + 2 { shares.append(try reader.double()) }
            references.append(StabilityReference(edges: edges, shares: shares))
            limits.append(try reader.double())
        }
    }
}

/// Population stability of every feature, each UTC day against the deployed model's training window.
package final class DriftStage: Stage {
    package let name = "drift"
    private let monitors: [MonitorDefinition]
    private let questions: [String: String]
    private let states = StateStore<DriftState>(name: "drift.states")

    package init(monitors: [MonitorDefinition], questions: [String: String]) {
        self.monitors = monitors
        self.questions = questions
    }

    package var inputs: [String] { ["questions.asked", "models.deployed"] }
    package let outputs = [MonitorTopics.drift]
    package var stores: [any AnyStateStore] { [states] }

    package func process(_ event: StreamEvent, _ context: StageContext) throws {
        let document = event.document
        if event.topic == "models.deployed" {
            try deployed(try document.value(), event.position.description, context)
            return
        }
        let question = document.member(0, "question").flatMap { document.string($0) }
        guard let vector = document.member(0, "vector") else { return }
        for monitor in monitors where questions[monitor.model] == question && states[monitor.name] != nil {
            // The first question of a day sets the day's end; setting it again changes nothing.
            if states[monitor.name]?.rows.isEmpty == true {
                context.setTimer(at: Instant(day: event.time.day + 1), key: monitor.name)
            }
            states.modify(monitor.name, default: DriftState()) { state in
                state.width = Int(document.nodes[vector].count)
                document.forEachElement(vector) { node in
                    state.rows.append(document.double(node).map { Float($0) } ?? .nan)
                }
            }
        }
    }

    private func deployed(_ data: JSON, _ position: String, _ context: StageContext) throws {
        for monitor in monitors where monitor.model == data["model"]?.string {
            guard let references = data["reference"]?.array else { continue }
            try states.modify(monitor.name, default: DriftState()) { state in
                state.references = []
                state.limits = []
                for item in references {
                    guard let reference = StabilityReference(json: item), let limit = item["limit"]?.double else {
                        throw SupervisionError("bad-reference", "the deployment at \(position) has a damaged reference")
                    }
                    state.references.append(reference)
                    state.limits.append(limit)
                }
                state.version = data["version"]?.int ?? 0
                state.deployed = position
            }
        }
    }

    package func fire(timer key: String, at time: Instant, _ context: StageContext) throws {
        guard let monitor = monitors.first(where: { $0.name == key }), let state = states[key] else { return }
        let rows = state.width > 0 ? state.rows.count / state.width : 0
        if rows > 0, state.references.count == state.width {
            var features: [JSON] = []
            var above: [JSON] = []
            for column in 0..<state.width {
                let reference = state.references[column]
                var counts = [Int](repeating: 0, count: reference.binCount)
                for row in 0..<rows {
                    counts[StabilityReference.bin(state.rows[row * state.width + column], reference.edges)] += 1
                }
                let name = column < monitor.featureNames.count ? monitor.featureNames[column] : String(column)
                let index = reference.index(counts: counts)
                features.append(
                    .object([
                        "feature": .string(name), "psi": index.map { .double($0) } ?? .null,
                        "limit": .double(state.limits[column]),
                    ]))
                if let index, index > state.limits[column] { above.append(.string(name)) }
            }
            let day = Instant(day: time.day - 1).date
            context.emit(
                topic: MonitorTopics.drift, type: "drift.day", id: "drift:\(key):\(day)", key: key,
                data: JSON.object([
                    "asOf": context.asOf(["questions.asked"]), "monitor": .string(key), "model": .string(monitor.model),
                    "version": .int(state.version),
                    "day": .string(day),
                    "questions": .int(Int64(rows)), "features": .array(features), "above": .array(above),
                    "convention": "deciles-missing-1e-4",
                ]).canonical, causation: state.deployed, source: name)
        }
        states.modify(key, default: DriftState()) { $0.rows.removeAll(keepingCapacity: true) }
    }
}
