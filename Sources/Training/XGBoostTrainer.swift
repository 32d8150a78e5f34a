import Base
import CXGBoost
import Datasets
import Foundation

package enum TrainingModule {}
/// Errors of trainers.
package typealias TrainingError = Failure<TrainingModule>

/// Trains binary classifiers through libxgboost. Deterministic for given rows, parameters and thread count.
package enum XGBoostTrainer {
    /// Parameters a request may set, with their defaults.
    private static let defaults: [(String, String)] = [
        ("objective", "binary:logistic"), ("tree_method", "hist"), ("max_depth", "6"), ("eta", "0.1"), ("seed", "42"),
        ("nthread", "2"), ("base_score", "0.5"), ("min_child_weight", "1"), ("subsample", "1"),
        ("colsample_bytree", "1"),
        ("lambda", "1"), ("alpha", "0"), ("gamma", "0"), ("max_bin", "256"),
    ]
    static let maximumRounds = 10_000

    /// Version of the linked library, part of a run's fingerprint.
    package static var libraryVersion: String {
        var major: Int32 = 0
        var minor: Int32 = 0
        var patch: Int32 = 0
        XGBoostVersion(&major, &minor, &patch)
        return "\(major).\(minor).\(patch)"
    }

    private static func check(_ result: Int32, _ what: String) throws(TrainingError) {
        guard result == 0 else {
            throw TrainingError(
                "xgboost", "libxgboost failed to \(what): \(String(cString: XGBGetLastError()))", fault: .world)
        }
    }

    /// The model as libxgboost's JSON.
    package static func train(_ data: Dataset, rows: Range<Int>, parameters: JSON) throws(TrainingError) -> [UInt8] {
        guard !rows.isEmpty else {
            throw TrainingError("no-rows", "there is no row to train on before the evaluation days")
        }
        guard let given = parameters.object else {
            throw TrainingError("bad-parameters", "the parameters are no mapping")
        }
        let rounds = given["rounds"]?.int ?? 100
        guard (1...Int64(maximumRounds)).contains(rounds) else {
            throw TrainingError("bad-parameters", "'rounds' must lie in 1...\(maximumRounds)")
        }
        let known = Set(defaults.map(\.0) + ["rounds"])
        if let stranger = given.keys.sorted().first(where: { !known.contains($0) }) {
            throw TrainingError(
                "bad-parameters",
                "the trainer has no parameter '\(stranger)'; it has \(known.sorted().joined(separator: ", "))")
        }
        let (matrix, labels) = (
            Array(data.values[rows.lowerBound * data.features..<rows.upperBound * data.features]),
            rows.map { data.labels[$0] ? Float(1) : 0 }
        )
        var handle: DMatrixHandle?
        let created = matrix.withUnsafeBufferPointer {
            XGDMatrixCreateFromMat($0.baseAddress, bst_ulong(rows.count), bst_ulong(data.features), .nan, &handle)
        }
        try check(created, "read the training rows")
        defer { XGDMatrixFree(handle) }
        try check(XGDMatrixSetFloatInfo(handle, "label", labels, bst_ulong(labels.count)), "read the labels")
        var booster: BoosterHandle?
        var matrices: [DMatrixHandle?] = [handle]
        try check(XGBoosterCreate(&matrices, 1, &booster), "make a booster")
        defer { XGBoosterFree(booster) }
        for (name, standard) in defaults {
            let value: String =
                switch given[name] {
                case .string(let text)?: text
                case .int(let number)?: String(number)
                case .double(let number)?: "\(number)"
                default: standard
                }
            try check(XGBoosterSetParam(booster, name, value), "take \(name)=\(value)")
        }
        for round in 0..<Int32(rounds) {
            try check(XGBoosterUpdateOneIter(booster, round, handle), "boost round \(round)")
        }
        var length: bst_ulong = 0
        var bytes: UnsafePointer<CChar>?
        try check(XGBoosterSaveModelToBuffer(booster, "{\"format\":\"json\"}", &length, &bytes), "write the model")
        guard let bytes else { throw TrainingError("xgboost", "libxgboost gave no model", fault: .world) }
        return [UInt8](UnsafeRawBufferPointer(start: bytes, count: Int(length)))
    }

    /// Scores of rows by the library itself: the reference that the tree walker is tested against.
    package static func predict(_ model: [UInt8], rows: [Float], width: Int, threads: Int = 1) throws(TrainingError)
        -> [Float]
    {
        var booster: BoosterHandle?
        try check(XGBoosterCreate(nil, 0, &booster), "make a booster")
        defer { XGBoosterFree(booster) }
        try check(
            model.withUnsafeBytes { XGBoosterLoadModelFromBuffer(booster, $0.baseAddress, bst_ulong($0.count)) },
            "load the model")
        try check(XGBoosterSetParam(booster, "nthread", String(threads)), "set the threads")
        var handle: DMatrixHandle?
        let count = rows.count / width
        let created = rows.withUnsafeBufferPointer {
            XGDMatrixCreateFromMat($0.baseAddress, bst_ulong(count), bst_ulong(width), .nan, &handle)
        }
        try check(created, "read the rows")
        defer { XGDMatrixFree(handle) }
        let configuration =
            "{\"type\":0,\"training\":false,\"iteration_begin\":0,\"iteration_end\":0,\"strict_shape\":false}"
        var shape: UnsafePointer<bst_ulong>?
        var dimensions: bst_ulong = 0
        var result: UnsafePointer<Float>?
        try check(XGBoosterPredictFromDMatrix(booster, handle, configuration, &shape, &dimensions, &result), "predict")
        return Array(UnsafeBufferPointer(start: result, count: count))
    }
}
