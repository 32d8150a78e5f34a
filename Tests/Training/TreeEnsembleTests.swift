import Base
import Datasets
import Foundation
import Learning
import RecordFormat
import Testing
import Training

@Suite struct TreeEnsembleTests {
    /// A dataset with missing values, ties and categories, by way of the same builder that reads the log.
    static func dataset(_ rows: Int, _ width: Int, _ seed: UInt64) throws -> Dataset {
        var random = SeededRandom(seed: seed)
        var builder = DatasetBuilder(span: DatasetSpan(question: "q", from: .distantPast, cut: .distantFuture))
        let document = JSONDocument()
        for row in 0..<rows {
            let values = (0..<width).map { column -> String in
                if Int.random(in: 0..<8, using: &random) == 0 { return "null" }
                return column % 3 == 0
                    ? "\(Int.random(in: -5...40, using: &random))" : "\(Float.random(in: -10...10, using: &random))"
            }
            try document.parse(
                [UInt8]("{\"question\":\"q\",\"id\":\"r\(row)\",\"vector\":[\(values.joined(separator: ","))]}".utf8))
            try builder.addQuestion(document, time: Instant(milliseconds: Int64(row) * 60_000))
            let positive = (Double(values[0]) ?? 3) + Double.random(in: -10...10, using: &random) > 15
            try document.parse([UInt8]("{\"question\":\"q\",\"id\":\"r\(row)\",\"label\":\(positive)}".utf8))
            builder.addOutcome(document, time: Instant(milliseconds: 0))
        }
        return builder.build()
    }

    static let parameters: JSON = ["rounds": 150, "max_depth": 6, "eta": 0.1, "seed": 42, "nthread": 2]

    /// A million rows: every score has the bits that libxgboost gives.
    @Test func scoresAreLibxgboostsToTheBit() throws {
        let width = 23
        let data = try Self.dataset(8000, width, 5)
        let model = try XGBoostTrainer.train(data, rows: 0..<data.count, parameters: Self.parameters)
        let ensemble = try TreeEnsemble(xgboost: model)
        #expect(ensemble.treeCount == 150 && ensemble.featureCount == width)
        var random = SeededRandom(seed: 6)
        var different = 0
        for _ in 0..<10 {
            var rows = [Float](repeating: 0, count: 100_000 * width)
            for index in rows.indices {
                // Values of the training data put rows exactly on thresholds; one ulp beside them is as likely.
                let value = data.values[Int.random(in: 0..<data.values.count, using: &random)]
                switch random.next() % 8 {
                case 0: rows[index] = value.nextUp
                case 1: rows[index] = value.nextDown
                case 2: rows[index] = .nan
                case 3: rows[index] = [-0.0, 0.0, .infinity, -.infinity][Int(random.next() % 4)]
                default: rows[index] = value
                }
            }
            let reference = try XGBoostTrainer.predict(
                model, rows: rows.map { $0.isInfinite ? ($0 > 0 ? 3e38 : -3e38) : $0 }, width: width, threads: 2)
            rows = rows.map { $0.isInfinite ? ($0 > 0 ? 3e38 : -3e38) : $0 }
            rows.withUnsafeBufferPointer { buffer in
                for row in reference.indices {
                    let score = ensemble.score(UnsafeBufferPointer(rebasing: buffer[row * width..<(row + 1) * width]))
                    if score.bitPattern != reference[row].bitPattern { different += 1 }
                }
            }
        }
        #expect(different == 0)
    }

    @Test func trainingRepeatsToTheByte() throws {
        let data = try Self.dataset(3000, 9, 8)
        let once = try XGBoostTrainer.train(data, rows: 0..<2500, parameters: Self.parameters)
        #expect(try XGBoostTrainer.train(data, rows: 0..<2500, parameters: Self.parameters) == once)
        #expect(data.digest == (try Self.dataset(3000, 9, 8)).digest)
        #expect(data.digest != (try Self.dataset(3000, 9, 9)).digest)
    }

    @Test func badRequestsAreNamed() throws {
        let data = try Self.dataset(50, 3, 1)
        #expect(errorCode { _ = try XGBoostTrainer.train(data, rows: 0..<0, parameters: [:]) } == "no-rows")
        #expect(
            errorCode { _ = try XGBoostTrainer.train(data, rows: 0..<50, parameters: ["roundz": 3]) }
                == "bad-parameters")
        #expect(
            errorCode { _ = try XGBoostTrainer.train(data, rows: 0..<50, parameters: ["max_depth": "deep"]) }
                == "xgboost")
        #expect(errorCode { _ = try TreeEnsemble(xgboost: [UInt8]("{}".utf8)) } == "bad-model")
    }
}
