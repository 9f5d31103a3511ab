// The camera, where the browser gives one: in the place of the image, with a button that takes one.

const byId = (id) => document.getElementById(id);

export class Camera {
  /** @param take is given the image, a PNG; @param refuse the sentence where there is no camera. */
  constructor(take, refuse) {
    this.take = take;
    this.refuse = refuse;
    const button = byId("camera");
    button.hidden = !navigator.mediaDevices?.getUserMedia;
    button.onclick = () => (this.stream ? this.close() : this.open());
    byId("take").onclick = () => this.shoot();
  }

  async open() {
    try {
      this.stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
    } catch {
      this.refuse("There is no camera, or this page may not use it: allow it in the browser.");
      return;
    }
    byId("camera-view").srcObject = this.stream;
    await byId("camera-view").play();
    this.shown(true);
  }

  shoot() {
    const view = byId("camera-view");
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [view.videoWidth, view.videoHeight];
    canvas.getContext("2d").drawImage(view, 0, 0);
    canvas.toBlob((blob) => {
      this.close();
      this.take(blob);
    }, "image/png");
  }

  close() {
    for (const track of this.stream.getTracks()) track.stop();
    this.stream = null;
    this.shown(false);
  }

  shown(open) {
    byId("camera-view").hidden = !open;
    byId("take").hidden = !open;
    byId("camera").textContent = open ? "Close the camera" : "Camera";
    const picture = byId("picture");
    if (open) {
      this.covered = [picture.hidden, byId("hint").hidden];
      [picture.hidden, byId("hint").hidden] = [true, true];
    } else {
      [picture.hidden, byId("hint").hidden] = this.covered;
    }
  }
}
