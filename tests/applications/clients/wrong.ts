// What must not compile. A line that does is an error of the compiler's.
import { Client as Odd } from "./odd.js";
import { Client } from "./shoebox.js";

export async function wrong(client: Client, odd: Odd): Promise<void> {
  // @ts-expect-error no text
  await client.createNote({});
  // @ts-expect-error a text is no number
  await client.createNote({ text: 1 });
  // @ts-expect-error no such key
  await client.createNote({ text: "", admin: true });
  // @ts-expect-error an id is a number
  await client.readNote("1");
  // @ts-expect-error no such key in the reply
  (await client.createNote({ text: "" })).number;
  // @ts-expect-error no such sort
  await client.getAdminUsers({ sort: "size" });
  // @ts-expect-error no file
  await odd.upload({ title: "" });
  // @ts-expect-error of no such kind
  await odd.everything({ pet: { type: "cow", lives: 1 } });
  // @ts-expect-error a page is no method
  odd.elsewhere();
}
