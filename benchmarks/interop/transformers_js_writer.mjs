// transformers.js in Node, on a model that writes. The request comes on stdin, the answer goes to stdout; both are
// described in __init__.py.
import { mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AutoModelForCausalLM, AutoTokenizer, env, LogLevel } from "@huggingface/transformers";

const DTYPES = {
  "onnx/model.onnx": "fp32",
  "onnx/model_fp16.onnx": "fp16",
  "onnx/model_quantized.onnx": "q8",
  "onnx/model_q4.onnx": "q4",
};

const request = JSON.parse(readFileSync(0, "utf8"));
env.allowRemoteModels = false;
env.allowLocalModels = true;
// A link with a plain name: a model's name must be one that the Hub would take, and a folder's need not be.
env.localModelPath = mkdtempSync(join(tmpdir(), "interop-"));
symlinkSync(request.bundle, join(env.localModelPath, "bundle"));
env.useFSCache = false;
env.logLevel = LogLevel.ERROR;

const ids = (tensor) => tensor.tolist()[0].map(Number);

async function write(tokenizer, model, prompt) {
  const inputs = prompt.messages
    ? tokenizer.apply_chat_template(prompt.messages, { add_generation_prompt: true, return_dict: true })
    : await tokenizer(prompt.text);
  const given = ids(inputs.input_ids);
  const answer = await model.generate({ ...inputs, max_new_tokens: request.count, do_sample: false });
  return { given, tokens: ids(answer).slice(given.length) };
}

const readings = [];
const errors = {};
for (const artifact of request.artifacts) {
  try {
    const tokenizer = await AutoTokenizer.from_pretrained("bundle");
    const model = await AutoModelForCausalLM.from_pretrained("bundle", { dtype: DTYPES[artifact] });
    const texts = [];
    for (const prompt of request.prompts) texts.push(await write(tokenizer, model, prompt));
    const prompts = texts.map((text) => text.given);
    readings.push({ artifact, way: "generate", prompts, written: texts.map((text) => text.tokens) });
    await model.dispose();
  } catch (error) {
    errors[artifact] = String(error?.message ?? error);
  }
}
rmSync(env.localModelPath, { recursive: true });
const versions = `${env.version}, Node ${process.versions.node}`;
console.log(JSON.stringify({ client: `transformers.js ${versions}`, readings, errors }));
