import Base
import Learning
import Streams

/// Answers questions with the deployed model, inside the fold.
package final class ServingStage: Stage {
    package let name = "serving"
    private let models: [ModelDefinition]
    /// Model bytes by role: `name|candidate`, `name|current`, `name|first`, with the version in front.
    private let artifacts = StateStore<StateBlob>(name: "serving.artifacts")
    private var loaded: [String: (version: Int64, ensemble: TreeEnsemble)] = [:]
    private var writer = JSONWriter(capacity: 2048)
    private var row: [Float] = []

    package init(models: [ModelDefinition]) { self.models = models }

    package var inputs: [String] {
        [ModelTopics.artifacts, "questions.asked", ModelTopics.deployed, ModelTopics.rejected]
    }
    package let outputs = [ModelTopics.served]
    package var stores: [any AnyStateStore] { [artifacts] }

    package func restored() throws {
        for key in artifacts.sortedKeys where !key.hasSuffix("|candidate") { try load(key) }
    }

    private func load(_ key: String) throws {
        guard let blob = artifacts[key] else { return }
        let version = blob.bytes.withUnsafeBytes { Int64(littleEndian: $0.loadUnaligned(as: Int64.self)) }
        loaded[key] = (version, try TreeEnsemble(xgboost: Array(blob.bytes.dropFirst(8))))
    }

    package func process(_ event: StreamEvent, _ context: StageContext) throws {
        let document = event.document
        func text(_ key: JSONKey) -> String { document.member(0, key).flatMap { document.string($0) } ?? "" }
        switch event.topic {
        case "questions.asked":
            let question = text("question")
            for model in models where model.question == question { serve(model, event, context) }
        case ModelTopics.artifacts:
            // The id is artifact:<model>@<version>; the data is the model as XGBoost wrote it.
            let parts = event.id.dropFirst("artifact:".count).split(separator: "@")
            guard parts.count == 2, let version = Int64(parts[1]) else {
                throw ModelsError("bad-artifact", "an artifact's id is artifact:<model>@<version>, not '\(event.id)'")
            }
            var bytes = ByteWriter()
            bytes.append(little: version)
            bytes.append(event.data)
            artifacts.set("\(parts[0])|candidate", StateBlob(bytes.bytes))
        case ModelTopics.deployed:
            let model = text("model")
            guard let candidate = artifacts.remove("\(model)|candidate") else {
                throw ModelsError("no-artifact", "the model '\(model)' was deployed but its bytes are not in the log")
            }
            artifacts.set("\(model)|current", candidate)
            try load("\(model)|current")
            if artifacts["\(model)|first"] == nil {
                artifacts.set("\(model)|first", candidate)
                try load("\(model)|first")
            }
        default: _ = artifacts.remove("\(text("model"))|candidate")
        }
    }

    private func serve(_ model: ModelDefinition, _ event: StreamEvent, _ context: StageContext) {
        guard let current = loaded["\(model.name)|current"] else { return }
        let document = event.document
        guard let vector = document.member(0, "vector") else { return }
        row.removeAll(keepingCapacity: true)
        document.forEachElement(vector) { node in
            let value = document.kind(node) == .number ? document.double(node) : nil
            row.append(value.map { Float($0) } ?? .nan)
        }
        let id = document.member(0, "id").flatMap { document.string($0) } ?? ""
        guard row.count >= current.ensemble.featureCount else { return }
        writer.reset()
        writer.beginObject()
        writer.key("model")
        writer.value(model.name)
        writer.key("version")
        writer.value(current.version)
        writer.key("score")
        writer.value(current.ensemble.score(row))
        if model.shadowFirst, let first = loaded["\(model.name)|first"], row.count >= first.ensemble.featureCount {
            writer.key("firstScore")
            writer.value(first.ensemble.score(row))
        }
        writer.key("asked")
        writer.value(event.position.description)
        for key in ["question", "id", "askedAt", "reportAt", "vector", "windows", "asOf"] as [JSONKey] {
            guard let node = document.member(0, key) else { continue }
            writer.key(key.text)
            if document.kind(node) == .string {
                writer.value(document.string(node) ?? "")
            } else {
                writer.raw(document.raw(node))
            }
        }
        writer.endObject()
        context.emit(
            topic: ModelTopics.served, type: "prediction.served", id: "\(model.name):\(id):\(event.position)", key: id,
            data: writer.bytes,
            causation: event.position.description, source: name)
    }
}
