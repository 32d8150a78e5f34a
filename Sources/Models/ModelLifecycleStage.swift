import Base
import Streams

/// What is known of one model: a small record, kept as canonical JSON.
struct ModelRecord: StateValue {
    var firstQuestionAt: Int64?
    var nextVersion: Int64 = 1
    var incumbent: Int64?
    var outstanding: String?

    init() {}

    func encode(into writer: inout ByteWriter) {
        writer.append(little: firstQuestionAt ?? .min)
        writer.append(little: nextVersion)
        writer.append(little: incumbent ?? .min)
        writer.append(sized: outstanding ?? "")
    }

    init(decoding reader: inout ByteReader) throws(BaseError) {
        func optional(_ value: Int64) -> Int64? { value == .min ? nil : value }
        firstQuestionAt = optional(try reader.little())
        nextVersion = try reader.little()
        incumbent = optional(try reader.little())
        let text = try reader.sizedText()
        outstanding = text.isEmpty ? nil : text
    }
}

/// Requests trainings, registers what they give, and decides between the new model and the incumbent.
package final class ModelLifecycleStage: Stage {
    package let name = "models"
    private let models: [ModelDefinition]
    private let records = StateStore<ModelRecord>(name: "models.records")

    package init(models: [ModelDefinition]) { self.models = models }

    package var inputs: [String] { [ModelTopics.completed, "questions.asked", ModelTopics.triggered] }
    package let outputs = [ModelTopics.requested, ModelTopics.registered, ModelTopics.deployed, ModelTopics.rejected]
    package var stores: [any AnyStateStore] { [records] }

    package func process(_ event: StreamEvent, _ context: StageContext) throws {
        let document = event.document
        switch event.topic {
        case "questions.asked":
            let question = document.member(0, "question").flatMap { document.string($0) }
            for model in models where model.question == question && records[model.name] == nil {
                records.modify(model.name, default: ModelRecord()) { $0.firstQuestionAt = event.time.milliseconds }
                context.setTimer(at: event.time + model.firstCutAfter, key: model.name)
            }
        case ModelTopics.triggered:
            let data = try document.value()
            guard let model = models.first(where: { $0.name == data["model"]?.string }) else { return }
            request(model, causes: data["causes"] ?? [], cause: event.position.description, context)
        default: try completed(try document.value(), event, context)
        }
    }

    package func fire(timer key: String, at time: Instant, _ context: StageContext) throws {
        guard let model = models.first(where: { $0.name == key }) else { return }
        request(
            model, causes: [.object(["kind": "first-cut", "after": .string("\(model.firstCutAfter / 86_400_000)d")])],
            cause: nil, context)
    }

    private func request(_ model: ModelDefinition, causes: JSON, cause: String?, _ context: StageContext) {
        guard let record = records[model.name], record.outstanding == nil else { return }
        let cut = context.now
        let answerAt = cut + model.availableAfter
        let id = "train:\(model.name)@\(record.nextVersion)"
        var asOf: [String: JSON] = [:]
        for (partition, next) in context.positions where next > 0 { asOf[partition.description] = .int(next) }
        let data = JSON.object([
            "model": .string(model.name), "version": .int(record.nextVersion), "question": .string(model.question),
            "from": .string((cut + -model.window).description), "cut": .string(cut.description),
            "evaluateFrom": .string((cut + -model.evaluation).description), "answerAt": .string(answerAt.description),
            "parameters": model.parameters, "incumbent": record.incumbent.map { .int($0) } ?? .null, "causes": causes,
            "asOf": .object(asOf),
        ])
        context.emit(
            topic: ModelTopics.requested, type: "training.requested", id: id, key: model.name, data: data.canonical,
            causation: cause, source: name)
        context.hold(request: id, until: answerAt)
        records.modify(model.name, default: ModelRecord()) {
            $0.outstanding = id
            $0.nextVersion += 1
        }
    }

    private func completed(_ data: JSON, _ event: StreamEvent, _ context: StageContext) throws {
        guard let model = data["model"]?.string, let version = data["version"]?.int, let request = event.causation,
            let record = records[model], record.outstanding == request
        else { throw ModelsError("unknown-answer", "a training answer belongs to no open request") }
        records.modify(model, default: ModelRecord()) { $0.outstanding = nil }
        let position = event.position.description
        let common: [String: JSON] = [
            "model": .string(model), "version": .int(version), "training": .string(position),
            "request": .string(request),
        ]
        if let failure = data["failure"]?.string {
            reject(common, "the training failed: \(failure)", [:], position, context)
            return
        }
        guard let metrics = data["metrics"], let auc = metrics["auc"]?.double else {
            throw ModelsError("bad-answer", "a training answer for \(model)@\(version) has no metrics")
        }
        var registered = common
        for key in ["artifact", "dataset", "metrics", "parameters", "code", "fingerprint"] {
            registered[key] = data[key]
        }
        let registration = context.emit(
            topic: ModelTopics.registered, type: "model.registered", id: "registered:\(model)@\(version)", key: model,
            data: JSON.object(registered).canonical, causation: position, source: name)
        let incumbent = metrics["incumbentAUC"]?.double
        if let incumbent, record.incumbent != nil, auc <= incumbent {
            reject(
                common, "its AUC of \(auc) on the evaluation days does not exceed the incumbent's \(incumbent)",
                ["auc": .double(auc), "incumbentAUC": .double(incumbent)], registration.description, context)
            return
        }
        var deployed = common
        deployed["artifact"] = data["artifact"]
        deployed["metrics"] = metrics
        deployed["reference"] = data["reference"]
        deployed["replaces"] = record.incumbent.map { .int($0) } ?? .null
        context.emit(
            topic: ModelTopics.deployed, type: "model.deployed", id: "deployed:\(model)@\(version)", key: model,
            data: JSON.object(deployed).canonical, causation: registration.description, source: name)
        records.modify(model, default: ModelRecord()) { $0.incumbent = version }
    }

    private func reject(
        _ common: [String: JSON], _ reason: String, _ more: [String: JSON], _ cause: String, _ context: StageContext
    ) {
        var data = common.merging(more) { $1 }
        data["reason"] = .string(reason)
        let model = common["model"]?.string ?? ""
        context.emit(
            topic: ModelTopics.rejected, type: "model.rejected", id: "rejected:\(model)@\(common["version"]?.int ?? 0)",
            key: model,
            data: JSON.object(data).canonical, causation: cause, source: name)
    }
}
