import Base
import Datasets
import EventLog
import Foundation
import Learning
import Models
import RecordFormat

/// Answers `training.requested`: builds the dataset from the log, trains, and appends the model and the completion in one
/// append, dated at the moment the request named. Stateless: after a crash it looks which requests have no answer yet.
package final class TrainingEffector {
    private let log: any EventLog
    private let principal: String
    /// Identifies the code that trained, for the run's record.
    private let code: String
    private let fingerprint: JSON
    private var next: Int64 = 0
    private var answered: Set<String> = []
    private var answersNext: Int64 = 0
    private let document = JSONDocument()

    package init(log: any EventLog, principal: String, code: String, fingerprint: JSON) {
        self.log = log
        self.principal = principal
        self.code = code
        self.fingerprint = fingerprint
    }

    /// Answers every open request; false when there was none.
    package func runSlice() throws -> Bool {
        try log.forEachEvent(TopicPartition(ModelTopics.completed, 0), from: answersNext) { event in
            if let request = event.header(EventHeader.causation) { answered.insert(request) }
            answersNext = event.offset + 1
            return true
        }
        var open: [(id: String, request: JSON, position: String)] = []
        try log.forEachEvent(TopicPartition(ModelTopics.requested, 0), from: next) { event in
            next = event.offset + 1
            guard !answered.contains(event.id), let data = event.data else { return true }
            try document.parse(data)
            open.append((event.id, try document.value(), "\(ModelTopics.requested)/0@\(event.offset)"))
            return true
        }
        for (id, request, position) in open {
            try answer(id, request, position)
            answered.insert(id)
        }
        return !open.isEmpty
    }

    private func answer(_ id: String, _ request: JSON, _ position: String) throws {
        guard let model = request["model"]?.string, let version = request["version"]?.int,
            let answerAt = request["answerAt"]?.string.flatMap({ Instant($0) })
        else { throw TrainingError("bad-request", "the training request at \(position) is damaged", fault: .headrace) }
        var events: [(topic: String, partition: Int?, event: NewEvent)] = []
        func event(
            _ topic: String, _ id: String, _ type: String, _ content: String, _ data: [UInt8], _ causation: String?
        ) {
            let event = NewEvent(
                id: id, source: "headrace:/effectors/training", type: type, time: answerAt, key: [UInt8](model.utf8),
                contentType: content, data: data, causation: causation, correlation: id)
            events.append((topic, 0, event))
        }
        do {
            let trained = try TrainingRun.run(request, log: log)
            let artifact = "artifact:\(model)@\(version)"
            event(ModelTopics.artifacts, artifact, "models.artifact", "application/json", trained.model, nil)
            var data = trained.json
            data["model"] = .string(model)
            data["version"] = .int(version)
            data["artifact"] = .object([
                "id": .string(artifact), "digest": .string(trained.modelDigest.hex),
                "bytes": .int(Int64(trained.model.count)),
            ])
            data["code"] = .string(code)
            data["fingerprint"] = fingerprint
            event(
                ModelTopics.completed, "completed:\(id)", "training.completed", "application/json",
                JSON.object(data).canonical, id)
        } catch let error as TrainingError {
            let data = JSON.object([
                "model": .string(model), "version": .int(version), "failure": .string(error.message),
            ])
            event(ModelTopics.completed, "completed:\(id)", "training.failed", "application/json", data.canonical, id)
        }
        _ = try log.append(LogAppend(principal: principal, events: events))
    }
}

/// One training from a request: the same code for the live effector and for an audit.
package struct TrainingRun {
    package let model: [UInt8]
    package let modelDigest: Digest
    package let datasetDigest: Digest
    package let json: [String: JSON]

    package static func span(_ request: JSON) throws(TrainingError) -> (span: DatasetSpan, evaluateFrom: Instant) {
        guard let question = request["question"]?.string, let from = request["from"]?.string.flatMap({ Instant($0) }),
            let cut = request["cut"]?.string.flatMap({ Instant($0) }),
            let evaluate = request["evaluateFrom"]?.string.flatMap({ Instant($0) })
        else { throw TrainingError("bad-request", "a training request names no span", fault: .headrace) }
        return (DatasetSpan(question: question, from: from, cut: cut), evaluate)
    }

    /// Builds the dataset from the log and trains.
    package static func run(_ request: JSON, log: any EventLog) throws -> TrainingRun {
        let (span, _) = try span(request)
        let (dataset, positions) = try DatasetBuilder.read(span, from: log)
        var incumbent: [UInt8]?
        if let version = request["incumbent"]?.int, let model = request["model"]?.string {
            incumbent = try artifact("artifact:\(model)@\(version)", log)
        }
        return try run(request, dataset: dataset, positions: positions, incumbent: incumbent)
    }

    /// The bytes of a model by its artifact id.
    package static func artifact(_ id: String, _ log: any EventLog) throws -> [UInt8] {
        var found: [UInt8]?
        try log.forEachEvent(TopicPartition(ModelTopics.artifacts, 0)) { event in
            guard event.id == id else { return true }
            found = event.data
            return false
        }
        guard let found else { throw TrainingError("no-artifact", "the log holds no model '\(id)'") }
        return found
    }

    package static func run(
        _ request: JSON, dataset: Dataset, positions: [(TopicPartition, Range<Int64>)], incumbent: [UInt8]?
    ) throws -> TrainingRun {
        let (_, evaluateFrom) = try span(request)
        let split = dataset.split(at: evaluateFrom)
        guard !split.from.isEmpty else {
            throw TrainingError("no-rows", "no row with truth lies in the evaluation days")
        }
        let model = try XGBoostTrainer.train(dataset, rows: split.before, parameters: request["parameters"] ?? [:])
        let labels = Array(dataset.labels[split.from])
        func scores(_ bytes: [UInt8]) throws -> [Float] {
            let ensemble = try TreeEnsemble(xgboost: bytes)
            return dataset.values.withUnsafeBufferPointer { values in
                split.from.map {
                    ensemble.score(
                        UnsafeBufferPointer(rebasing: values[$0 * dataset.features..<($0 + 1) * dataset.features]))
                }
            }
        }
        let own = try scores(model)
        guard let auc = Metrics.auc(own, labels) else {
            throw TrainingError("one-class", "the evaluation days hold only one class")
        }
        var metrics: [String: JSON] = [
            "auc": .double(auc), "logLoss": Metrics.logLoss(own, labels).map { .double($0) } ?? .null,
        ]
        if let incumbent {
            metrics["incumbentAUC"] = Metrics.auc(try scores(incumbent), labels).map { .double($0) } ?? .null
        }
        var ranges: [String: JSON] = [:]
        for (partition, range) in positions {
            ranges[partition.description] = .array([.int(range.lowerBound), .int(range.upperBound)])
        }
        let digest = dataset.digest
        let json: [String: JSON] = [
            "dataset": .object([
                "digest": .string(digest.hex), "rows": .int(Int64(dataset.count)),
                "trainingRows": .int(Int64(split.before.count)),
                "evaluationRows": .int(Int64(split.from.count)), "positions": .object(ranges),
                "from": request["from"] ?? .null, "cut": request["cut"] ?? .null,
            ]),
            "parameters": request["parameters"] ?? .null, "metrics": .object(metrics),
            "reference": .array(reference(dataset, split.before)),
        ]
        return TrainingRun(model: model, modelDigest: Digest.of(model), datasetDigest: digest, json: json)
    }

    /// Per feature: deciles and shares of the training rows, and the 99th percentile of their own daily PSIs.
    private static func reference(_ dataset: Dataset, _ rows: Range<Int>) -> [JSON] {
        var days: [Range<Int>] = []
        var start = rows.lowerBound
        for row in rows where row + 1 == rows.upperBound || day(dataset, row + 1) != day(dataset, row) {
            days.append(start..<row + 1)
            start = row + 1
        }
        return (0..<dataset.features).map { column in
            let values = rows.map { dataset.values[$0 * dataset.features + column] }
            let reference = StabilityReference(values: values)
            var daily: [Double] = []
            for range in days {
                var counts = [Int](repeating: 0, count: reference.binCount)
                for row in range { counts[StabilityReference.bin(values[row - rows.lowerBound], reference.edges)] += 1 }
                if let index = reference.index(counts: counts) { daily.append(index) }
            }
            var json = reference.json.object ?? [:]
            json["limit"] = .double(Metrics.quantile(daily.sorted(), 0.99) ?? 0)
            return .object(json)
        }
    }

    private static func day(_ dataset: Dataset, _ row: Int) -> Int {
        Instant(milliseconds: dataset.askedAt[row]).day
    }
}
