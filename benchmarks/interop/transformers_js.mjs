// transformers.js in Node. The request comes on stdin, the answer goes to stdout; both are described in __init__.py.
import { mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { env, LogLevel, pipeline } from "@huggingface/transformers";

const DTYPES = { "onnx/model.onnx": "fp32", "onnx/model_quantized.onnx": "q8" };

const request = JSON.parse(readFileSync(0, "utf8"));
env.allowRemoteModels = false;
env.allowLocalModels = true;
// A link with a plain name: a model's name must be one that the Hub would take, and a folder's need not be.
env.localModelPath = mkdtempSync(join(tmpdir(), "interop-"));
symlinkSync(request.bundle, join(env.localModelPath, "bundle"));
env.useFSCache = false;
env.logLevel = LogLevel.ERROR;

// One text at a time through the model, with the ids that its own tokenizer made.
async function alone(pipe) {
  const runs = [];
  for (const text of request.texts) {
    const inputs = await pipe.tokenizer(text, { truncation: true });
    const outputs = await pipe.model(inputs);
    runs.push({ ids: inputs.input_ids.tolist()[0].map(Number), outputs });
  }
  return runs;
}

async function classify(pipe, artifact) {
  const runs = await alone(pipe);
  const logits = runs.map((run) => run.outputs.logits.tolist()[0]);
  const labels = logits.map((row) => pipe.model.config.id2label[row.indexOf(Math.max(...row))]);
  const answers = await pipe(request.texts, { top_k: null });
  const scores = answers.map((answer) => {
    const byLabel = Object.fromEntries(answer.map(({ label, score }) => [label, score]));
    return request.labels.map((label) => byLabel[label] ?? null);
  });
  const best = answers.map((answer) => answer[0].label);
  const ids = runs.map((run) => run.ids);
  return [
    { artifact, way: "model", kind: "logits", values: logits, labels, ids },
    { artifact, way: "pipeline, one batch", kind: "scores", values: scores, labels: best, ids },
  ];
}

async function embed(pipe, artifact) {
  const runs = await alone(pipe);
  const sentences = runs.map((run) => run.outputs.sentence_embedding.tolist()[0]);
  const pooled = await pipe(request.texts, { pooling: request.pooling, normalize: request.normalize });
  const ids = runs.map((run) => run.ids);
  return [
    { artifact, way: "sentence_embedding", kind: "embedding", values: sentences, ids },
    { artifact, way: "pipeline, one batch", kind: "embedding", values: pooled.tolist(), ids },
  ];
}

const read = { "text-classification": classify, "feature-extraction": embed }[request.task];
const readings = [];
const errors = {};
for (const artifact of request.artifacts) {
  try {
    const pipe = await pipeline(request.task, "bundle", { dtype: DTYPES[artifact] });
    readings.push(...(await read(pipe, artifact)));
    await pipe.dispose();
  } catch (error) {
    errors[artifact] = String(error?.message ?? error);
  }
}
rmSync(env.localModelPath, { recursive: true });
const versions = `${env.version}, Node ${process.versions.node}`;
console.log(JSON.stringify({ client: `transformers.js ${versions}`, readings, errors }));
