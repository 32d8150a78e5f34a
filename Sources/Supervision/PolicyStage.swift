import Base
import Streams

/// What a policy has seen of its model.
package struct PolicyState: StateValue {
    var deployedAt: Int64 = .min
    var referenceAUC = Double.nan
    var deployed = ""
    var lastRequest: Int64 = .min
    var windowAUC = Double.nan
    var windowLabels: Int64 = 0
    var windowPosition = ""
    /// Drift events of consecutive days above the limit, oldest first.
    var driftPositions: [String] = []
    var lastDriftDay = ""

    init() {}

    package func encode(into writer: inout ByteWriter) {
        writer.append(little: deployedAt)
        writer.append(referenceAUC)
        writer.append(sized: deployed)
        writer.append(little: lastRequest)
        writer.append(windowAUC)
        writer.append(little: windowLabels)
        writer.append(sized: windowPosition)
        writer.append(sized: lastDriftDay)
        writer.append(little: UInt32(driftPositions.count))
        for position in driftPositions { writer.append(sized: position) }
    }

    package init(decoding reader: inout ByteReader) throws(BaseError) {
        deployedAt = try reader.little()
        referenceAUC = try reader.double()
        deployed = try reader.sizedText()
        lastRequest = try reader.little()
        windowAUC = try reader.double()
        windowLabels = try reader.little()
        windowPosition = try reader.sizedText()
        lastDriftDay = try reader.sizedText()
        for _ in 0..<(try reader.little(UInt32.self)) { driftPositions.append(try reader.sizedText()) }
    }
}

/// Decides at each UTC midnight whether a model is to be retrained, and names why by position.
package final class PolicyStage: Stage {
    package let name = "policy"
    private let policies: [PolicyDefinition]
    private let states = StateStore<PolicyState>(name: "policy.states")

    package init(policies: [PolicyDefinition]) { self.policies = policies }

    package var inputs: [String] {
        ["training.requested", "models.deployed", MonitorTopics.performance, MonitorTopics.drift]
    }
    package let outputs = [MonitorTopics.triggered]
    package var stores: [any AnyStateStore] { [states] }

    package func process(_ event: StreamEvent, _ context: StageContext) throws {
        let data = try event.document.value()
        let position = event.position.description
        for policy in policies where policy.model == data["model"]?.string {
            switch event.topic {
            case "training.requested":
                states.modify(policy.name, default: PolicyState()) { $0.lastRequest = event.time.milliseconds }
            case "models.deployed":
                states.modify(policy.name, default: PolicyState()) {
                    $0.deployedAt = event.time.milliseconds
                    $0.referenceAUC = data["metrics"]?["auc"]?.double ?? .nan
                    $0.deployed = position
                    // What was measured against the old reference says nothing about the new one.
                    $0.driftPositions = []
                    $0.lastDriftDay = ""
                }
            case MonitorTopics.drift:
                states.modify(policy.name, default: PolicyState()) { drifted(policy, data, position, &$0) }
            default:
                guard event.type == "performance.window" else { continue }
                // Decided at this same midnight, after every other stage has had its say.
                if states[policy.name]?.deployedAt ?? .min != .min {
                    context.setTimer(at: event.time, key: policy.name)
                }
                states.modify(policy.name, default: PolicyState()) {
                    $0.windowAUC = data["auc"]?.double ?? .nan
                    $0.windowLabels = data["labels"]?.int ?? 0
                    $0.windowPosition = position
                }
            }
        }
    }

    private func drifted(_ policy: PolicyDefinition, _ data: JSON, _ position: String, _ state: inout PolicyState) {
        guard let wanted = policy.driftFeatures, let day = data["day"]?.string else { return }
        let hit = (data["above"]?.array?.count ?? 0) >= wanted
        // Days with a gap between them are not in a row.
        if let last = Instant(state.lastDriftDay + "T00:00:00Z"), Instant(day: last.day + 1).date != day {
            state.driftPositions = []
        }
        if hit {
            state.driftPositions.append(position)
            if state.driftPositions.count > policy.driftDays { state.driftPositions.removeFirst() }
        } else {
            state.driftPositions = []
        }
        state.lastDriftDay = day
    }

    package func fire(timer key: String, at time: Instant, _ context: StageContext) throws {
        guard let policy = policies.first(where: { $0.name == key }), let state = states[key] else { return }
        // Without labels of the last days there is nothing new to learn from.
        guard state.windowLabels > 0 else { return }
        guard state.lastRequest == .min || time.milliseconds - state.lastRequest >= policy.cooldown else { return }
        var causes: [JSON] = []
        if let drop = policy.aucDrop, state.windowLabels >= Int64(policy.minimumLabels),
            state.windowAUC < state.referenceAUC - drop
        {
            causes.append(
                .object([
                    "kind": "auc", "auc": .double(state.windowAUC), "reference": .double(state.referenceAUC),
                    "labels": .int(state.windowLabels), "position": .string(state.windowPosition),
                    "deployed": .string(state.deployed),
                ]))
        }
        if policy.driftFeatures != nil, state.driftPositions.count >= policy.driftDays {
            causes.append(
                .object(["kind": "drift", "positions": .array(state.driftPositions.map { .string($0) })]))
        }
        if let age = policy.maximumAge, time.milliseconds - state.deployedAt >= age {
            causes.append(
                .object([
                    "kind": "age", "days": .int((time.milliseconds - state.deployedAt) / 86_400_000),
                    "position": .string(state.deployed),
                ]))
        }
        guard !causes.isEmpty else { return }
        context.emit(
            topic: MonitorTopics.triggered, type: "retraining.triggered", id: "retrain:\(policy.name):\(time.date)",
            key: policy.model,
            data: JSON.object([
                "policy": .string(policy.name), "model": .string(policy.model), "at": .string(time.description),
                "causes": .array(causes),
            ]).canonical, causation: state.windowPosition, source: name)
    }
}
